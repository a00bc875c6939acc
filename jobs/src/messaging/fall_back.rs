//! The next way: what did not reach a person by one goes by the next.
//!
//! | where the way before stands | at its time |
//! |---|---|
//! | failed, or left out for a reason of this way | the next is taken at once |
//! | still queued (held, paced, no template approved) | left out as `fell_back`, and the next is taken |
//! | taken by the carrier and not delivered, or unknown | the next, if it is to arrive at least once; else never |
//! | delivered, read | nothing more |
//!
//! Each way is judged for itself when its attempt begins: a no that she said on one stays a no on the other
//! ([`super::wishes::TABLE`]). Where the way before reaches her while the next one is still queued, that one is left out.

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Document, Error, MessageId, Policy, State,
    campaign::{self, CampaignState},
    ledger::Ledger,
    request, sealed,
    store::{self, MessageRow, NewRow, Place},
    trail::Trail,
};
use crate::{
    evidence::words,
    queue::{self, Done, Job, JobContext, Lane, NewJob},
};

/// A POST under way is looked at again after this time.
const LOOK: TimeDelta = TimeDelta::minutes(1);
/// Messages whose time is over that are planned at once; the rest with the next minute.
const PLANNED: i64 = 5_000;

/// `messaging.fall_back`: takes the next way to a person, if that is what is to be done.
///
/// Everything happens in one transaction under the message's lock, and a way is there once: run twice is once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallBack {
    /// The message that did not reach her.
    pub message_id: MessageId,
}

/// What is to become of a message whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next way.
    Next,
    /// Nothing any more.
    Rest,
    /// Look again soon.
    Later,
}

fn turn(row: &MessageRow) -> Turn {
    let twice_rather_than_never = row.policy == Policy::AtLeastOnce;
    match row.state {
        State::Failed | State::Skipped | State::Queued => Turn::Next,
        State::Posting => Turn::Later,
        State::Unknown | State::Accepted | State::Held | State::Sent | State::UnknownFinal
            if twice_rather_than_never =>
        {
            Turn::Next
        }
        // It may still fail; then its time comes again.
        _ => Turn::Rest,
    }
}

impl Job for FallBack {
    const KIND: &'static str = "messaging.fall_back";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let (id, now) = (self.message_id, ctx.now());
        let mut tx = ctx.begin().await?;
        let mut trail = Trail::of(ctx, Self::KIND);
        let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], now).await?;
        let row = &ledger.get(id)?.message;
        if row.fall_back_at.is_none_or(|at| at > now) {
            return Ok(Done::OK);
        }
        let (turn, queued, over) = (turn(row), row.state == State::Queued, now >= row.expires_at);
        let halted = match row.campaign {
            Some(campaign) => {
                campaign::state_of(&mut tx, ctx.business, campaign).await? == Some(CampaignState::Stopped)
            }
            None => false,
        };
        match turn {
            Turn::Later => ledger.look_again(id, now + LOOK),
            Turn::Next if !over && !halted => {
                if queued {
                    ledger.skip(id, "fell_back", &mut trail);
                }
                take_next(&mut tx, ctx, &ledger.get(id)?.message, &mut trail).await?;
                ledger.settle(id);
            }
            Turn::Next | Turn::Rest => ledger.settle(id),
        }
        ledger.write(&mut tx, ctx).await?;
        trail.write(&mut tx).await?;
        ctx.step("messaging.fell_back").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Writes the message by the next way that there is; those that are not are in the ledger as left out.
async fn take_next(
    tx: &mut sqlx::PgConnection,
    ctx: &JobContext,
    row: &MessageRow,
    trail: &mut Trail<'_>,
) -> Result<(), Error> {
    let (now, vault, of) = (ctx.now(), &*ctx.deps.vault, (ctx.business, row.message_id));
    let spent = store::load_spent(tx, row.message_id).await?.ok_or(Error::NoMessage(row.message_id))?;
    let ways = sealed::open_ways(tx, vault, of, spent.ways_sealed.as_deref()).await?;
    let ways = ways.ok_or(Error::Unreadable(row.message_id, "ways"))?;
    let content = sealed::open_content(tx, vault, of, &spent.params_sealed).await?;
    let document = spent.document_digest.zip(spent.document_filename);
    let document = document.map(|(digest, filename)| Document { digest, filename });
    let falls_back_after = TimeDelta::seconds(i64::from(row.fall_back_secs.unwrap_or(1)));
    for way in row.way + 1..row.ways {
        let place = usize::try_from(way).unwrap_or(usize::MAX);
        let address = ways.ways().get(place).ok_or(Error::Unreadable(row.message_id, "ways"))?;
        let number = request::number_for(tx, ctx.business, address).await?;
        let skipped =
            (address.channel() == super::wishes::Channel::Whatsapp && number.is_none()).then_some("no_number");
        let id = MessageId(ctx.deps.chance.uuid_v7(now));
        let personal = sealed::seal_message(tx, vault, (ctx.business, id), (&ways, place), &content).await?;
        let more = way + 1 < row.ways && skipped.is_none();
        let new = NewRow {
            business: ctx.business,
            id,
            number: number.as_ref(),
            personal,
            template: &row.template,
            language: &row.language,
            document: document.as_ref(),
            purpose: &spent.purpose,
            class: row.class,
            policy: row.policy,
            campaign: row.campaign,
            place: Place {
                delivery: row.delivery.unwrap_or(row.message_id),
                way,
                ways: row.ways,
                falls_back_after,
                fall_back_at: more.then(|| now + falls_back_after),
            },
            not_before: None,
            expires_at: row.expires_at,
            now,
        };
        if !store::insert_message(tx, &new, skipped).await? {
            // Somebody took this way already.
            return Ok(());
        }
        let details = json!({ "to": id, "channel": address.channel(), "skipped": skipped });
        trail.note(words::MESSAGE_FELL_BACK, row.message_id, details);
        if let Some(campaign) = row.campaign {
            let state = if skipped.is_some() { "skipped" } else { "queued" };
            campaign::count_more(tx, (ctx.business, &*ctx.deps.chance), (campaign, state)).await?;
        }
        if skipped.is_none() {
            return request::plan(tx, ctx.business, (id, row.class), (None, row.expires_at)).await;
        }
    }
    Ok(())
}

/// `messaging.fall_back_due`: plans [`FallBack`] for the messages whose time is over. Every minute.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallBackDue {}

impl Job for FallBackDue {
    const KIND: &'static str = "messaging.fall_back_due";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let now = ctx.now();
        let mut tx = ctx.begin_for_all().await?;
        for (business, message_id) in store::list_falling_back(&mut tx, now, PLANNED).await? {
            // One for each minute: a message that is planned already is not planned again with every look.
            let key = format!("{message_id}/{}", now.timestamp() / 60);
            queue::enqueue(&mut tx, &NewJob::of(business, &FallBack { message_id })?.key(key)).await?;
        }
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
