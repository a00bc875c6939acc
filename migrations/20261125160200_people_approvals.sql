-- One decision that takes a second person: somebody asks for a plan to be carried out, others approve exactly that plan.
--
--   pending ──enough yes──▶ approved ──▶ carried_out
--      ▲  └──one no──▶ denied   │
--      └────plan changed, or a yes withdrawn────┘         either one ──▶ withdrawn, expired
--
-- What must never happen is refused here and not only in the program: a requester who approves, one person twice, a
-- machine, two accounts of one phone or mail address, a plan other than the one that was shown.
create table muneem.people_approvals (
    approval_id uuid primary key,
    -- Null: a decision about the installation itself, for staff of the platform.
    business_id uuid references muneem.people_businesses (business_id),
    -- What kind of thing is decided on: people::approval::Kind.
    kind text not null constraint people_approvals_kind_form check (kind ~ '^[a-z][a-z_]*\.[a-z][a-z_]*$'),
    -- The thing, by its id in its own duty.
    subject_id text not null constraint people_approvals_subject_form check (subject_id ~ '^[A-Za-z0-9._:/-]{1,160}$'),
    -- SHA-256 of the plan in canonical JSON (RFC 8785).
    plan_sha256 bytea not null constraint people_approvals_plan_length check (octet_length(plan_sha256) = 32),
    -- Counts the plans; each change asks everybody anew.
    version integer not null constraint people_approvals_version_counts check (version >= 1),
    -- What the approver is shown, masked, sealed: part of the plan.
    summary_sealed bytea not null,
    approvers_needed smallint not null constraint people_approvals_needed_sane check (approvers_needed between 1 and 5),
    -- Who asked for the plan in force: `operator`, `staff:<id>` or `token:<public id>`.
    requested_by text not null constraint people_approvals_requested_by_form
        check (requested_by ~ '^(operator|staff:[0-9a-f-]{36}|token:[0-9a-f]{16})$'),
    -- The person behind it; null: a machine of the business.
    requested_staff uuid references muneem.people_staff (staff_id),
    requested_at timestamptz not null,
    expires_at timestamptz not null constraint people_approvals_expires_soon
        check (expires_at > requested_at and expires_at <= requested_at + interval '90 days'),
    state text not null constraint people_approvals_state_known
        check (state in ('pending', 'approved', 'carried_out', 'denied', 'withdrawn', 'expired')),
    -- When it was approved last, while it stands.
    approved_at timestamptz,
    ended_at timestamptz,
    constraint people_approvals_ended_whole check ((state in ('pending', 'approved')) = (ended_at is null)),
    constraint people_approvals_approved_whole
        check (state not in ('approved', 'carried_out') or approved_at is not null)
);

-- One decision at a time about one thing.
create unique index people_approvals_open on muneem.people_approvals (business_id, kind, subject_id) nulls not distinct
    where ended_at is null;
create index people_approvals_page on muneem.people_approvals (business_id, approval_id desc);
create index people_approvals_requested_staff on muneem.people_approvals (requested_staff)
    where requested_staff is not null and ended_at is null;

-- Who had a hand in an open decision, by every phone and mail address of hers: whoever comes a second time under another
-- account is recognised, also after the first account is gone. Written by the triggers below; gone when it ends.
create table muneem.people_approval_contacts (
    approval_id uuid not null references muneem.people_approvals (approval_id),
    business_id uuid references muneem.people_businesses (business_id),
    channel text not null constraint people_approval_contacts_channel_known check (channel in ('phone', 'email')),
    contact_index bytea not null constraint people_approval_contacts_length check (octet_length(contact_index) = 16),
    -- Id of the person of staff, or of the link of somebody outside.
    party uuid not null,
    -- She asked, or changed what was asked.
    asked boolean not null,
    primary key (approval_id, channel, contact_index)
);

create index people_approval_contacts_party on muneem.people_approval_contacts (approval_id, party);
create index people_approval_contacts_contact on muneem.people_approval_contacts (channel, contact_index);

-- One yes or no of one person. There is no column for a machine.
create table muneem.people_approval_votes (
    vote_id uuid primary key,
    approval_id uuid not null references muneem.people_approvals (approval_id),
    business_id uuid references muneem.people_businesses (business_id),
    -- What she saw.
    version integer not null,
    plan_sha256 bytea not null,
    staff_id uuid references muneem.people_staff (staff_id),
    -- Somebody outside, who was invited for this one decision.
    link_id uuid references muneem.people_links (link_id),
    party uuid not null generated always as (coalesce(staff_id, link_id)) stored,
    verdict text not null constraint people_approval_votes_verdict_known check (verdict in ('approve', 'deny')),
    voted_at timestamptz not null,
    -- When it ceased to count: she took it back, or left.
    withdrawn_at timestamptz,
    constraint people_approval_votes_one_person check (num_nonnulls(staff_id, link_id) = 1)
);

create unique index people_approval_votes_once on muneem.people_approval_votes (approval_id, version, party)
    where withdrawn_at is null;
create index people_approval_votes_staff on muneem.people_approval_votes (staff_id)
    where staff_id is not null and withdrawn_at is null;

-- How many people say yes to the plan in force. Whoever has left says nothing any more.
create function muneem.people_approval_count(id uuid) returns integer
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select count(distinct v.party)::integer
    from muneem.people_approvals a
    join muneem.people_approval_votes v
        on v.approval_id = a.approval_id and v.version = a.version and v.plan_sha256 = a.plan_sha256
    left join muneem.people_staff s on s.staff_id = v.staff_id
    where a.approval_id = id
        and v.verdict = 'approve'
        and v.withdrawn_at is null
        and (v.staff_id is null or s.removed_at is null)
$$;

-- Keeps whoever asks from approving later, under this account or another one of the same phone or mail address. The
-- triggers run as their owner: the program itself can neither write nor unwrite who had a hand in a decision.
create function muneem.people_approval_note_asker() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.ended_at is not null then
        delete from muneem.people_approval_contacts where approval_id = new.approval_id;
        return null;
    end if;
    if new.requested_staff is null
        or (tg_op = 'UPDATE' and new.version = old.version) then
        return null;
    end if;
    insert into muneem.people_approval_contacts as c (approval_id, business_id, channel, contact_index, party, asked)
    select new.approval_id, new.business_id, k.channel, k.contact_index, s.staff_id, true
    from muneem.people_staff s
    cross join lateral (values ('phone', s.phone_index), ('email', s.email_index)) k (channel, contact_index)
    where s.staff_id = new.requested_staff
        and k.contact_index is not null
    on conflict (approval_id, channel, contact_index) do update set asked = true;
    return null;
end
$$;

create trigger people_approvals_note_asker after insert or update on muneem.people_approvals
    for each row execute function muneem.people_approval_note_asker();

-- A decision begins pending, moves along its arrows alone, and is approved by people and not by an update.
create function muneem.people_approval_guard() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    sealed_before muneem.people_approvals%rowtype;
begin
    if tg_op = 'INSERT' then
        if new.state <> 'pending' or new.version <> 1 then
            raise exception 'a decision begins pending'
                using errcode = 'MN030', constraint = 'people_approvals_begins_pending';
        end if;
        return new;
    end if;
    -- Keys of the vault turn: what is shown is sealed anew, and nothing else changes with it.
    sealed_before := new;
    sealed_before.summary_sealed := old.summary_sealed;
    if sealed_before is not distinct from old then
        return new;
    end if;
    if old.ended_at is not null then
        raise exception 'the decision has ended' using errcode = 'MN030', constraint = 'people_approvals_ended';
    end if;
    if (new.approval_id, new.business_id, new.kind, new.subject_id, new.approvers_needed, new.expires_at)
        is distinct from
        (old.approval_id, old.business_id, old.kind, old.subject_id, old.approvers_needed, old.expires_at) then
        raise exception 'what is decided on stays' using errcode = 'MN030', constraint = 'people_approvals_subject_stays';
    end if;
    if (new.version, new.plan_sha256, new.summary_sealed, new.requested_by, new.requested_staff)
        is distinct from (old.version, old.plan_sha256, old.summary_sealed, old.requested_by, old.requested_staff) then
        if new.version <> old.version + 1 or new.plan_sha256 = old.plan_sha256 or new.state <> 'pending' then
            raise exception 'another plan is another version, and pending'
                using errcode = 'MN030', constraint = 'people_approvals_plan_asks_anew';
        end if;
    end if;
    if new.state = 'carried_out' and old.state <> 'approved' then
        raise exception 'what was not approved is not carried out'
            using errcode = 'MN030', constraint = 'people_approvals_approved_first';
    end if;
    if new.state = 'carried_out' and new.ended_at >= old.expires_at then
        raise exception 'the decision has expired' using errcode = 'MN030', constraint = 'people_approvals_in_time';
    end if;
    if new.state in ('approved', 'carried_out')
        and muneem.people_approval_count(old.approval_id) < old.approvers_needed then
        raise exception 'too few people approved' using errcode = 'MN030', constraint = 'people_approvals_enough';
    end if;
    return new;
end
$$;

create trigger people_approvals_guard before insert or update on muneem.people_approvals
    for each row execute function muneem.people_approval_guard();

-- One person, one vote, on the plan that she saw, while it is open. The lock on the decision makes votes, changes and
-- ends follow each other: of two that race, one finds it as the other left it.
create function muneem.people_approval_vote_guard() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    decision muneem.people_approvals%rowtype;
    person muneem.people_staff%rowtype;
    link muneem.people_links%rowtype;
    voter uuid := coalesce(new.staff_id, new.link_id);
begin
    select a.* into decision from muneem.people_approvals a where a.approval_id = new.approval_id for update;
    if not found or decision.business_id is distinct from new.business_id then
        raise exception 'no such decision' using errcode = 'MN030', constraint = 'people_approval_votes_approval';
    end if;
    if decision.version <> new.version or decision.plan_sha256 <> new.plan_sha256 then
        raise exception 'the plan has changed' using errcode = 'MN030', constraint = 'people_approval_votes_same_plan';
    end if;
    if decision.state <> 'pending' then
        raise exception 'the decision is not pending' using errcode = 'MN030', constraint = 'people_approval_votes_pending';
    end if;
    if decision.expires_at <= new.voted_at then
        raise exception 'the decision has expired' using errcode = 'MN030', constraint = 'people_approval_votes_in_time';
    end if;
    if new.staff_id is not null then
        select s.* into person from muneem.people_staff s where s.staff_id = new.staff_id for share;
        if not found or person.removed_at is not null or person.business_id is distinct from decision.business_id then
            raise exception 'not a person of this business'
                using errcode = 'MN030', constraint = 'people_approval_votes_by_staff';
        end if;
        if person.phone_verified_at is null and person.email_verified_at is null then
            raise exception 'her phone or mail address is not verified'
                using errcode = 'MN030', constraint = 'people_approval_votes_verified';
        end if;
        if decision.requested_staff = new.staff_id then
            raise exception 'whoever asks does not approve'
                using errcode = 'MN030', constraint = 'people_approval_votes_second_person';
        end if;
        insert into muneem.people_approval_contacts (approval_id, business_id, channel, contact_index, party, asked)
        select new.approval_id, new.business_id, k.channel, k.contact_index, voter, false
        from (values ('phone', person.phone_index), ('email', person.email_index)) k (channel, contact_index)
        where k.contact_index is not null
        on conflict (approval_id, channel, contact_index) do nothing;
    else
        select l.* into link from muneem.people_links l where l.link_id = new.link_id for update;
        if not found or link.purpose <> 'approval' or link.subject_id <> new.approval_id
            or link.business_id is distinct from decision.business_id or link.revoked_at is not null
            or link.expires_at <= new.voted_at then
            raise exception 'the invitation is not for this decision'
                using errcode = 'MN030', constraint = 'people_approval_votes_invited';
        end if;
        if link.verified_at is null then
            raise exception 'her phone or mail address is not verified'
                using errcode = 'MN030', constraint = 'people_approval_votes_verified';
        end if;
        insert into muneem.people_approval_contacts (approval_id, business_id, channel, contact_index, party, asked)
        values (new.approval_id, new.business_id, link.channel, coalesce(link.phone_index, link.email_index), voter, false)
        on conflict (approval_id, channel, contact_index) do nothing;
    end if;
    if exists (
        select from muneem.people_approval_contacts c
        where c.approval_id = new.approval_id and c.asked
            and (c.party = voter
                or (c.channel = 'phone' and c.contact_index = person.phone_index)
                or (c.channel = 'email' and c.contact_index = person.email_index)
                or (c.channel = link.channel and c.contact_index = coalesce(link.phone_index, link.email_index)))) then
        raise exception 'whoever asks does not approve'
            using errcode = 'MN030', constraint = 'people_approval_votes_second_person';
    end if;
    if exists (
        select from muneem.people_approval_contacts c
        where c.approval_id = new.approval_id and c.party <> voter
            and ((c.channel = 'phone' and c.contact_index = person.phone_index)
                or (c.channel = 'email' and c.contact_index = person.email_index)
                or (c.channel = link.channel and c.contact_index = coalesce(link.phone_index, link.email_index)))) then
        raise exception 'the same person has voted under another name'
            using errcode = 'MN030', constraint = 'people_approval_votes_other_person';
    end if;
    return new;
end
$$;

create trigger people_approval_votes_guard before insert on muneem.people_approval_votes
    for each row execute function muneem.people_approval_vote_guard();

-- A vote that was taken back stays so: whoever changes her mind once more votes anew.
create function muneem.people_approval_vote_stays() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if old.withdrawn_at is not null then
        raise exception 'the vote was taken back'
            using errcode = 'MN030', constraint = 'people_approval_votes_stay_withdrawn';
    end if;
    return new;
end
$$;

create trigger people_approval_votes_stay before update on muneem.people_approval_votes
    for each row execute function muneem.people_approval_vote_stays();

-- Whoever had a hand in an open decision is recognised also by the phone or mail address that she has from now on, and
-- by the index of the same one under another key: keys of blind indexes turn while decisions are open.
create function muneem.people_approval_carry_contact() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    channels constant text[] := array['phone', 'email'];
    before constant bytea[] := array[old.phone_index, old.email_index];
    after constant bytea[] := array[new.phone_index, new.email_index];
begin
    insert into muneem.people_approval_contacts as c (approval_id, business_id, channel, contact_index, party, asked)
    select known.approval_id, known.business_id, known.channel, k.after, known.party, known.asked
    from unnest(channels, before, after) k (channel, before, after)
    join muneem.people_approval_contacts known on known.channel = k.channel and known.contact_index = k.before
    join muneem.people_approvals a on a.approval_id = known.approval_id and a.ended_at is null
    where k.after is not null and k.before <> k.after
    on conflict (approval_id, channel, contact_index) do update set asked = c.asked or excluded.asked;
    return null;
end
$$;

create trigger people_staff_carry_contact after update of phone_index, email_index on muneem.people_staff
    for each row execute function muneem.people_approval_carry_contact();
create trigger people_links_carry_contact after update of phone_index, email_index on muneem.people_links
    for each row execute function muneem.people_approval_carry_contact();

grant select, insert on muneem.people_approvals to muneem_app;
grant update (plan_sha256, version, summary_sealed, requested_by, requested_staff, state, approved_at, ended_at)
    on muneem.people_approvals to muneem_app;
grant select, insert on muneem.people_approval_votes to muneem_app;
grant update (withdrawn_at) on muneem.people_approval_votes to muneem_app;
grant select on muneem.people_approval_contacts to muneem_app;
grant execute on function muneem.people_approval_count(uuid) to muneem_app;
grant select (approval_id, business_id, kind, subject_id, plan_sha256, version, approvers_needed, requested_by,
    requested_staff, requested_at, expires_at, state, approved_at, ended_at) on muneem.people_approvals to muneem_auditor;
grant select on muneem.people_approval_votes to muneem_auditor;
revoke all on function muneem.people_approval_count(uuid), muneem.people_approval_note_asker(),
    muneem.people_approval_guard(), muneem.people_approval_vote_guard(), muneem.people_approval_vote_stays(),
    muneem.people_approval_carry_contact() from public;
