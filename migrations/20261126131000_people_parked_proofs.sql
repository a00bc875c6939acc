-- A code that was right may lead on by way of a page (who is she, which business). Until it is answered the proof waits as
-- a row that was sent to nobody, and so counts among no sent codes.

alter table muneem.people_sign_in_codes
    -- The people of staff to whom such a proof may lead; null: the code was sent, or chooses.
    add column leads_to uuid[],
    add constraint people_sign_in_codes_proof_by_channel check (leads_to is null or channel is not null);
