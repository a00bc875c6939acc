-- Roots of whole subtrees, so that a start and a proof read a few hundred hashes and not the log.

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        grant muneem_evidence_owner, muneem_sealer to current_user;
    end if;
end
$$;

-- The root over 2^level leaves, from leaf place * 2^level on (RFC 6962). Levels 8, 16, 24…, as tiles of 256 have them
-- (C2SP tlog-tiles): a node for each 256 leaves, and a few above. Computed from the leaves by the sealer; nothing
-- trusts it before it has led to a signed root, and `evidence.check_log` computes it anew.
create table muneem.evidence_nodes (
    level smallint not null constraint evidence_nodes_level check (level between 8 and 56 and level % 8 = 0),
    place bigint not null constraint evidence_nodes_place check (place >= 0),
    hash bytea not null constraint evidence_nodes_hash_size check (octet_length(hash) = 32),
    constraint evidence_nodes_pkey primary key (level, place)
);

create trigger evidence_nodes_append_only before update or delete on muneem.evidence_nodes
    for each row execute function muneem.evidence_refuse_change();
create trigger evidence_nodes_no_truncate before truncate on muneem.evidence_nodes
    for each statement execute function muneem.evidence_refuse_change();

-- Keeps subtree roots, under the lead alone. One that is there stays as it is.
create function muneem.evidence_keep_nodes(fence bigint, levels smallint[], places bigint[], hashes bytea[])
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if not exists (select from muneem.evidence_head h where h.fence = evidence_keep_nodes.fence) then
        raise exception 'sealing does not go on under fencing number %', evidence_keep_nodes.fence
            using errcode = 'MN021';
    end if;
    insert into muneem.evidence_nodes (level, place, hash)
    select u.level, u.place, u.hash
    from unnest(evidence_keep_nodes.levels, evidence_keep_nodes.places, evidence_keep_nodes.hashes)
        as u (level, place, hash)
    on conflict (level, place) do nothing;
end
$$;

grant select on muneem.evidence_nodes to muneem_app, muneem_auditor, muneem_sealer;
grant insert on muneem.evidence_nodes to muneem_sealer;
revoke all on function muneem.evidence_keep_nodes(bigint, smallint[], bigint[], bytea[]) from public;
grant execute on function muneem.evidence_keep_nodes(bigint, smallint[], bigint[], bytea[]) to muneem_app;

alter table muneem.evidence_nodes owner to muneem_evidence_owner;
grant create on schema muneem to muneem_sealer;
alter function muneem.evidence_keep_nodes(bigint, smallint[], bigint[], bytea[]) owner to muneem_sealer;
revoke create on schema muneem from muneem_sealer;

do $$
begin
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        revoke muneem_evidence_owner, muneem_sealer from current_user;
    end if;
end
$$;
