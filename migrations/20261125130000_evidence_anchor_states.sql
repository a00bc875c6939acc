-- Several anchors at once: each receipt says of which one it is, and each anchor has a row that says how it stands.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner, muneem_sealer to current_user;
    end if;
end
$$;

-- Empty in rows from before there were several of a kind.
alter table muneem.evidence_anchors
    add column anchor text not null default ''
        constraint evidence_anchors_anchor_form check (anchor ~ '^([a-z][a-z0-9_]{0,31})?$');
alter table muneem.evidence_anchors drop constraint evidence_anchors_pkey;
alter table muneem.evidence_anchors
    add constraint evidence_anchors_pkey primary key (checkpoint_id, kind, anchor);
grant insert (anchor) on muneem.evidence_anchors to muneem_app;

-- How one anchor stands. Written by whoever leads the sealing, for people and measures; no evidence, so it may change.
create table muneem.evidence_anchor_states (
    anchor text not null constraint evidence_anchor_states_pkey primary key
        constraint evidence_anchor_states_form check (anchor ~ '^[a-z][a-z0-9_]{0,31}$'),
    -- `directory`, `objects`, `timestamp`, `mail`
    kind text not null,
    -- Whether an operator chose the place.
    outside boolean not null,
    -- The last head that it took.
    laid_id bigint references muneem.evidence_checkpoints (checkpoint_id),
    laid_at timestamptz,
    -- Since when it does not do as asked, how often in a row, what it said last, and when it is asked again.
    failing_since timestamptz,
    failures integer not null default 0,
    problem text constraint evidence_anchor_states_problem_size check (length(problem) <= 1000),
    retry_at timestamptz,
    -- When the sealer last spoke of it. What is not configured any more falls silent.
    seen_at timestamptz not null
);

-- Notes how an anchor stands, under the lead alone.
create function muneem.evidence_note_anchor(
    fence bigint, anchor text, kind text, outside boolean, laid_id bigint, laid_at timestamptz, failing_since timestamptz,
    failures integer, problem text, retry_at timestamptz, seen_at timestamptz) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if not exists (select from muneem.evidence_head h where h.fence = evidence_note_anchor.fence) then
        raise exception 'sealing does not go on under fencing number %', evidence_note_anchor.fence
            using errcode = 'MN021';
    end if;
    insert into muneem.evidence_anchor_states as s
        (anchor, kind, outside, laid_id, laid_at, failing_since, failures, problem, retry_at, seen_at)
    values (
        evidence_note_anchor.anchor, evidence_note_anchor.kind, evidence_note_anchor.outside,
        evidence_note_anchor.laid_id, evidence_note_anchor.laid_at, evidence_note_anchor.failing_since,
        evidence_note_anchor.failures, left(evidence_note_anchor.problem, 1000), evidence_note_anchor.retry_at,
        evidence_note_anchor.seen_at)
    on conflict (anchor) do update
    set kind = excluded.kind, outside = excluded.outside, laid_id = excluded.laid_id, laid_at = excluded.laid_at,
        failing_since = excluded.failing_since, failures = excluded.failures, problem = excluded.problem,
        retry_at = excluded.retry_at, seen_at = excluded.seen_at;
end
$$;

grant select on muneem.evidence_anchor_states to muneem_app, muneem_auditor, muneem_sealer;
grant insert, update on muneem.evidence_anchor_states to muneem_sealer;
revoke all on function muneem.evidence_note_anchor(
    bigint, text, text, boolean, bigint, timestamptz, timestamptz, integer, text, timestamptz, timestamptz) from public;
grant execute on function muneem.evidence_note_anchor(
    bigint, text, text, boolean, bigint, timestamptz, timestamptz, integer, text, timestamptz, timestamptz)
    to muneem_app;

alter table muneem.evidence_anchor_states owner to muneem_evidence_owner;
grant create on schema muneem to muneem_sealer;
alter function muneem.evidence_note_anchor(
    bigint, text, text, boolean, bigint, timestamptz, timestamptz, integer, text, timestamptz, timestamptz)
    owner to muneem_sealer;
revoke create on schema muneem from muneem_sealer;

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_evidence_owner, muneem_sealer from current_user;
    end if;
end
$$;
