-- What `muneem migrate` has told the evidence log, one row a thing: `schema`, the version of its last step, and `law`,
-- the digest of the program's data of the law. Written in the transaction that records a change of it, by the owner
-- alone, so that a migration that was killed before it was recorded is recorded by the next one, and none twice.
create table muneem.schema_recorded (
    thing text not null constraint schema_recorded_pkey primary key
        constraint schema_recorded_thing_known check (thing in ('schema', 'law')),
    version text not null,
    recorded_at timestamptz not null
);

-- The log belongs to a role of its own. Whoever owns the schema may add to it as the app role does, and no more: what
-- commands do under her login leaves its evidence too. A superuser needs no grant.
do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner to current_user;
        execute format(
            'grant insert (event_id, business_id, body) on muneem.evidence_events to %I',
            current_user);
        revoke muneem_evidence_owner from current_user;
    end if;
end
$$;
