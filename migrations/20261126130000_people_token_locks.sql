-- Who acts with a token takes it first and rows of people after; whoever ends tokens of a person does the same, so that
-- the two do not wait for each other in a circle. And no request that acts waits long behind somebody else's lock: those
-- that come after it with the same token would all wait too, each with a connection.

create or replace function muneem.people_hold_token(token text, at timestamptz) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Until the transaction ends, for whatever it waits for.
    perform set_config('lock_timeout', '5s', true);
    perform pg_advisory_xact_lock_shared(hashtextextended('muneem.people_tokens/' || token, 8787));
    -- A statement of its own: it sees what was committed while the lock was waited for.
    return exists (
        select from muneem.people_tokens t
        where t.public_id = token
            and t.revoked_at is null
            and (t.expires_at is null or t.expires_at > at));
end
$$;

-- Before anything else of a transaction that ends tokens of a person: waits for whoever acts with one, which the time
-- that a request may take bounds, and lets nobody past. One made meanwhile is waited for when it is ended.
create function muneem.people_hold_tokens_of(person uuid) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    token text;
begin
    perform set_config('lock_timeout', '60s', true);
    for token in
        select t.public_id
        from muneem.people_tokens t
        where t.staff_id = person and t.revoked_at is null
        order by t.public_id
    loop
        perform pg_advisory_xact_lock(hashtextextended('muneem.people_tokens/' || token, 8787));
    end loop;
end
$$;

revoke all on function muneem.people_hold_tokens_of(uuid) from public;
grant execute on function muneem.people_hold_tokens_of(uuid) to muneem_app;

select muneem.people_build_wall();
