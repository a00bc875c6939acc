-- Why somebody said no, as one of a few words: whoever asked has to know what to mend, and free text may name a person.
alter table muneem.people_approval_votes
    -- people::approval::Reason; null: none was given.
    add column reason text,
    add constraint people_approval_votes_reason_known
        check (reason in ('too_much', 'wrong', 'unclear', 'not_now', 'not_expected')),
    add constraint people_approval_votes_reason_of_a_no check (reason is null or verdict = 'deny');
