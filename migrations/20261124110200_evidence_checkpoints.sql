-- One signed head of the log (C2SP tlog-checkpoint): who holds a note can tell whether anything up to `size` was
-- changed since. Made every few seconds while the log grows, and hourly regardless, so that silence is seen.
create table muneem.evidence_checkpoints (
    checkpoint_id bigint generated always as identity constraint evidence_checkpoints_pkey primary key,
    size bigint not null,
    root bytea not null constraint evidence_checkpoints_root_size check (octet_length(root) = 32),
    note text not null constraint evidence_checkpoints_note_size check (octet_length(note) between 1 and 4096),
    at timestamptz not null default muneem.now()
);

create index evidence_checkpoints_size on muneem.evidence_checkpoints (size, checkpoint_id);

-- One checkpoint laid down outside this database, with what the other side answered.
create table muneem.evidence_anchors (
    checkpoint_id bigint not null references muneem.evidence_checkpoints (checkpoint_id),
    -- `objects`, `timestamp`, `mail`
    kind text not null constraint evidence_anchors_kind_form check (kind ~ '^[a-z_]{1,32}$'),
    -- The receipt: a DER time-stamp token, the object's name, the mail's Message-ID.
    proof bytea not null constraint evidence_anchors_proof_size check (octet_length(proof) <= 65536),
    at timestamptz not null default muneem.now(),
    constraint evidence_anchors_pkey primary key (checkpoint_id, kind)
);

-- One row once it is known that the log went back in time (a restored backup): what was found, and when. Nothing heals
-- it by itself, and no checkpoint is signed while it stands.
create table muneem.evidence_forks (
    only_row boolean primary key default true constraint evidence_forks_one_row check (only_row),
    at timestamptz not null default muneem.now(),
    -- Size of the log here, and of the anchored one that it contradicts.
    size bigint not null,
    anchored_size bigint not null,
    anchor text not null
);

create trigger evidence_checkpoints_append_only before update or delete on muneem.evidence_checkpoints
    for each row execute function muneem.evidence_refuse_change();
create trigger evidence_checkpoints_no_truncate before truncate on muneem.evidence_checkpoints
    for each statement execute function muneem.evidence_refuse_change();
create trigger evidence_anchors_append_only before update or delete on muneem.evidence_anchors
    for each row execute function muneem.evidence_refuse_change();
create trigger evidence_anchors_no_truncate before truncate on muneem.evidence_anchors
    for each statement execute function muneem.evidence_refuse_change();
create trigger evidence_forks_append_only before update or delete on muneem.evidence_forks
    for each row execute function muneem.evidence_refuse_change();

-- Keeps a signed head: only under the lead, never smaller than the one before, never larger than what is sealed.
create function muneem.evidence_keep_checkpoint(fence bigint, size bigint, root bytea, note text) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    head record;
    kept bigint;
begin
    select h.size, h.fence into head from muneem.evidence_head h for update;
    if head.fence <> evidence_keep_checkpoint.fence then
        raise exception 'sealing goes on under fencing number %, not %', head.fence, evidence_keep_checkpoint.fence
            using errcode = 'MN021';
    end if;
    if exists (select from muneem.evidence_forks) then
        raise exception 'the log went back in time: no checkpoint is kept' using errcode = 'MN023';
    end if;
    if evidence_keep_checkpoint.size > head.size
        or exists (select from muneem.evidence_checkpoints c where c.size > evidence_keep_checkpoint.size)
    then
        raise exception 'a checkpoint of size % does not follow', evidence_keep_checkpoint.size using errcode = 'MN024';
    end if;
    insert into muneem.evidence_checkpoints (size, root, note)
    values (evidence_keep_checkpoint.size, evidence_keep_checkpoint.root, evidence_keep_checkpoint.note)
    returning checkpoint_id into kept;
    return kept;
end
$$;

grant select on muneem.evidence_checkpoints, muneem.evidence_anchors, muneem.evidence_forks
    to muneem_app, muneem_auditor, muneem_sealer;
grant insert (size, root, note) on muneem.evidence_checkpoints to muneem_sealer;
grant insert (checkpoint_id, kind, proof) on muneem.evidence_anchors to muneem_app;
grant insert (size, anchored_size, anchor) on muneem.evidence_forks to muneem_app;

revoke all on function muneem.evidence_keep_checkpoint(bigint, bigint, bytea, text) from public;
grant execute on function muneem.evidence_keep_checkpoint(bigint, bigint, bytea, text) to muneem_app;

alter table muneem.evidence_checkpoints owner to muneem_evidence_owner;
alter table muneem.evidence_anchors owner to muneem_evidence_owner;
alter table muneem.evidence_forks owner to muneem_evidence_owner;
grant create on schema muneem to muneem_sealer;
alter function muneem.evidence_keep_checkpoint(bigint, bigint, bytea, text) owner to muneem_sealer;
revoke create on schema muneem from muneem_sealer;

-- The migrator was lent these for the steps above.
do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_evidence_owner, muneem_sealer from current_user;
    end if;
end
$$;
