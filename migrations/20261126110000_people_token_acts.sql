-- A token that acts and is ended at the same moment: one of the two comes first.
--
-- Whoever acts holds the token until her transaction ends, together with others who act with it; whoever ends it waits
-- for those, and lets nobody past her. An advisory lock and none on the row: it is given in the order of asking, so that
-- a token that acts without a break is not kept alive by it, and nothing is written for it.

-- Whether the token opens anything at this instant; if so, it is not ended before the transaction is over.
create function muneem.people_hold_token(token text, at timestamptz) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock_shared(hashtextextended('muneem.people_tokens/' || token, 8787));
    -- A statement of its own: it sees what was committed while the lock was waited for.
    return exists (
        select from muneem.people_tokens t
        where t.public_id = token
            and t.revoked_at is null
            and (t.expires_at is null or t.expires_at > at));
end
$$;

create function muneem.people_end_token() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('muneem.people_tokens/' || old.public_id, 8787));
    return new;
end
$$;

-- On the table and not in a function: tokens end one by one, with their person, with a role, with a grant to support.
create trigger people_tokens_end before update of revoked_at on muneem.people_tokens
    for each row when (old.revoked_at is null and new.revoked_at is not null)
    execute function muneem.people_end_token();

revoke all on function muneem.people_hold_token(text, timestamptz), muneem.people_end_token() from public;
grant execute on function muneem.people_hold_token(text, timestamptz) to muneem_app;

select muneem.people_build_wall();
