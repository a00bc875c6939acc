-- The business that a caller means: by handle, or the only one there is when she names none. A login that is bound to
-- businesses (people_logins) means no other. Part of every function that frontends may call.
create function muneem.people_resolve_business(handle text) returns uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    bound boolean := exists (select from muneem.people_logins l where l.login = session_user);
    found_id uuid;
    candidates bigint;
begin
    if handle is not null then
        select b.business_id into found_id
        from muneem.people_businesses b
        where b.handle = people_resolve_business.handle
            and (not bound or exists (
                select from muneem.people_logins l where l.login = session_user and l.business_id = b.business_id));
        if found_id is null then
            raise exception 'no business %', quote_literal(left(handle, 64))
                using errcode = 'MN003', hint = 'take the handle of a business that this login may name, as `muneem people business list` shows it';
        end if;
        return found_id;
    end if;
    -- uuid has no min(): two rows are enough to know.
    select (array_agg(c.business_id))[1], count(*) into found_id, candidates
    from (
        select b.business_id
        from muneem.people_businesses b
        where not bound or exists (
            select from muneem.people_logins l where l.login = session_user and l.business_id = b.business_id)
        limit 2
    ) c;
    if candidates = 0 then
        raise exception 'no business is set up'
            using errcode = 'MN003', hint = 'add one: muneem people business add HANDLE LEGAL_NAME';
    elsif candidates > 1 then
        raise exception 'which business? there are several'
            using errcode = 'MN004', hint = 'name one: business => ''handle''';
    end if;
    return found_id;
end
$$;

revoke all on function muneem.people_resolve_business(text) from public;
grant execute on function muneem.people_resolve_business(text) to muneem_app, muneem_enqueuer;
