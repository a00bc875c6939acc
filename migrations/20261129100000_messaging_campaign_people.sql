-- A person is in a campaign once, however often a list names her: a load that was broken off can simply be run again.
-- There was no way to fill a campaign but from Rust before this, so no rows stand against it.
create unique index messaging_messages_campaign_once on muneem.messaging_messages (campaign_id, to_mark)
    where campaign_id is not null;
