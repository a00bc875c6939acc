-- Who finds the queue locked by somebody else gives up after two seconds and comes again: the server forgets the
-- statement before its caller does, so that no claim commits for a worker that no longer waits for it, and no
-- connection is lost to a lock.
alter function muneem.queue_claim(bigint, muneem.queue_lane[], integer[], uuid[]) set lock_timeout = '2s';
alter function muneem.queue_finish(bigint, bigint[], integer[], jsonb[]) set lock_timeout = '2s';
alter function muneem.queue_put_back(bigint, bigint[], integer[], timestamptz[], boolean[], text[], text[])
    set lock_timeout = '2s';
alter function muneem.queue_bury(bigint, bigint[], integer[], text[], text[]) set lock_timeout = '2s';
alter function muneem.queue_finish_cancelled(bigint, bigint[], integer[]) set lock_timeout = '2s';
alter function muneem.queue_release(bigint, timestamptz) set lock_timeout = '2s';
alter function muneem.queue_leave(bigint) set lock_timeout = '2s';
alter function muneem.queue_stay_awake(bigint, interval, integer) set lock_timeout = '2s';
alter function muneem.queue_cancel_requests(bigint[]) set lock_timeout = '2s';
