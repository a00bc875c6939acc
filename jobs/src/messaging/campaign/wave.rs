use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream::FuturesUnordered};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Campaign, CampaignId, CampaignState, store};
use crate::{
    evidence::words,
    messaging::{
        Error, Language, MessageClass, MessageId, Reference, State, accounts,
        holds::{self, Gate, Line},
        inbound::{self, Asked},
        ledger::{self, Ledger},
        limits::{self, Place},
        reconcile, rules, sealed, send,
        store::{Envelope, load_envelopes},
        template::{self, May},
        trail::Trail,
    },
    outbound::{
        Chance, Phone, Sender,
        carrier::{Failure, NumberId, OutgoingMessage, SendOutcome},
    },
    people::BusinessId,
    queue::{self, Done, Job, JobContext, Lane, NewJob, Settings},
};

/// Messages of one wave: more than the places that a number of the highest rate has ahead.
const WAVE: i64 = 48;
/// A stream gives its place back to the queue after so long, and comes again.
const STREAM_RUN: Duration = Duration::from_secs(40);
/// Longer than this a stream does not wait in its place, but in the queue.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How long after the last look at the campaign a POST of it begins: shorter than the two seconds that a stop promises.
const LATEST_POST: Duration = Duration::from_millis(1500);
/// Attempts judged in one transaction.
const JUDGED: i64 = 500;

/// Sends a campaign's messages, wave after wave, beside the campaign's other streams.
///
/// A wave: places in the number's rate, messages taken under lock, attempts committed, POSTs each at its place, what came
/// of them committed together. A worker that dies leaves attempts `posting`, which `messaging.reconcile_waves` follows;
/// whoever runs this job next goes on with other messages.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendWave {
    /// Which campaign.
    pub campaign_id: CampaignId,
    /// Which of its streams.
    pub stream: u8,
}

/// What a wave came to.
enum Wave {
    /// So many were posted.
    Sent,
    /// None may go for so long.
    Wait(Duration),
    /// There is nothing left to send, or it is not to be sent.
    Over,
}

impl Job for SendWave {
    const KIND: &'static str = "messaging.send_wave";
    const LANE: Lane = Lane::Bulk;
    const SETTINGS: Settings = Settings { timeout: Duration::from_secs(90), ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.campaign_id;
        let ends = Instant::now() + STREAM_RUN;
        follow_up(ctx, id).await?;
        loop {
            let wait = match wave(ctx, id).await? {
                Wave::Sent => Duration::ZERO,
                Wave::Wait(wait) if wait <= LONGEST_WAIT && Instant::now() + wait < ends => wait,
                Wave::Wait(wait) => return Err(again(ctx, id, wait)),
                Wave::Over => return finish(ctx, id).await,
            };
            tokio::select! {
                () = ctx.cancelled.cancelled() => return Err(again(ctx, id, Duration::ZERO)),
                () = tokio::time::sleep(wait) => {}
            }
            if Instant::now() >= ends {
                return Err(again(ctx, id, Duration::ZERO));
            }
        }
    }
}

fn again(ctx: &JobContext, campaign: CampaignId, wait: Duration) -> Error {
    Error::CampaignWaits { campaign, until: ctx.now() + rules::delta(wait) }
}

/// Plans the look at what this run may leave behind, before it leaves anything.
async fn follow_up(ctx: &JobContext, id: CampaignId) -> Result<(), Error> {
    let mut tx = ctx.begin().await?;
    let look_at = ctx.now() + rules::delta(STREAM_RUN + ctx.deps.messaging.unknown_window);
    let reconcile = NewJob::of(ctx.business, &ReconcileWaves { campaign_id: id })?;
    // One for all streams that begin within the same minute.
    let key = format!("{id}/{}", look_at.timestamp() / 60);
    queue::enqueue(&mut tx, &reconcile.key(key).run_at(look_at)).await?;
    tx.commit().await?;
    Ok(())
}

/// A message that is committed as an attempt and waits for its place.
struct Ready {
    attempt: (MessageId, i32),
    at: Instant,
    message: OutgoingMessage,
}

async fn wave(ctx: &JobContext, id: CampaignId) -> Result<Wave, Error> {
    let now = ctx.now();
    let mut conn = ctx.begin_to_read().await?;
    let Some(campaign) = store::find(&mut conn, Some(ctx.business), id).await? else { return Ok(Wave::Over) };
    // One that is done may have a message to try again.
    if !matches!(campaign.state, CampaignState::Running | CampaignState::Done) {
        return Ok(Wave::Over);
    }
    let number = NumberId::parse(&campaign.phone_number_id).map_err(|_| Error::NoSuchNumber)?;
    let sender = accounts::sender_of(&mut conn, &ctx.deps.vault, ctx.business, &number).await?;
    drop(conn);
    if now >= campaign.expires_at {
        return expire(ctx, &campaign).await;
    }
    if let Some(until) = ctx.deps.messaging.quiet_hours.until(campaign.class, &campaign.purpose, now) {
        return Ok(Wave::Wait((until - now).to_std().unwrap_or_default()));
    }
    let mut tx = ctx.begin().await?;
    let taken = store::take(&mut tx, id, WAVE, now).await?;
    if taken.is_empty() {
        let waiting = store::find_waiting(&mut tx, id).await?;
        tx.commit().await?;
        return Ok(match waiting {
            None => Wave::Over,
            // Put off, or in the hands of another stream.
            Some(until) => {
                Wave::Wait(until.and_then(|until| (until - now).to_std().ok()).unwrap_or(Duration::from_millis(200)))
            }
        });
    }
    let ids: Vec<_> = taken.iter().map(|id| id.0).collect();
    let envelopes = load_envelopes(&mut tx, ctx.business, &ids).await?;
    let Some(first) = envelopes.first() else { return Ok(Wave::Over) };
    let probes = match gate(&mut tx, ctx, first, &campaign).await? {
        Gate::Open(probes) => probes,
        Gate::Held { until, .. } => {
            look_elsewhere(&mut tx, &campaign, now).await?;
            tx.commit().await?;
            return Ok(Wave::Wait((until - now).to_std().unwrap_or_default().max(Duration::from_secs(1))));
        }
    };
    let account = (ctx.business, first.waba_id.as_str());
    let folder = (campaign.template.as_str(), first.language.as_str());
    match template::may_send(&mut tx, account, folder, campaign.class).await? {
        May::Send => {}
        May::NotNow { .. } => {
            look_elsewhere(&mut tx, &campaign, now).await?;
            tx.commit().await?;
            return Ok(Wave::Wait(send::TEMPLATE_LOOK.to_std().unwrap_or_default()));
        }
        // What sells needs another consent than this campaign asked for: a person decides.
        May::Never { .. } => {
            let by = ctx.by(SendWave::KIND);
            store::set_state(&mut tx, id, CampaignState::Paused, Some("template_is_marketing"), by.now).await?;
            let details = json!({ "because": "template_is_marketing" });
            super::record(&mut tx, words::CAMPAIGN_PAUSED, (ctx.business, id), details, &by).await?;
            tx.commit().await?;
            return Ok(Wave::Over);
        }
    }
    let (mut people, mut asked) = (Vec::with_capacity(taken.len()), Vec::with_capacity(taken.len()));
    for (message, envelope) in taken.iter().zip(&envelopes) {
        let (to, content) = sealed::open_message(&mut tx, &ctx.deps.vault, (ctx.business, *message), envelope).await?;
        let mark = sealed::person(&mut tx, &ctx.deps.vault, ctx.business, &to).await?;
        let ways =
            sealed::open_ways(&mut tx, &ctx.deps.vault, (ctx.business, *message), envelope.ways_sealed.as_deref());
        asked.push(Asked::by_whatsapp(
            &to,
            (campaign.class, &campaign.purpose),
            (ways.await?.as_ref(), envelope.has_more),
        ));
        people.push((*message, to, content, mark));
    }
    // Who finds out whether a hold is over goes alone.
    if !probes.is_empty() {
        if !holds::probe(&mut tx, &probes, now).await? {
            tx.rollback().await?;
            return Ok(Wave::Wait(Duration::from_secs(5)));
        }
        people.truncate(1);
        asked.truncate(1);
    }
    let mut trail = Trail::of(ctx, SendWave::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, taken.iter().copied(), now).await?;
    let verdicts = inbound::judge(&mut tx, ctx, &asked).await?;
    let elsewhere = send::reached_otherwise(&mut tx, &ledger, &taken).await?;
    let mut skipped = 0;
    let mut verdicts = verdicts.into_iter();
    people.retain(|(message, ..)| match verdicts.next().flatten().or(elsewhere.get(message).copied()) {
        Some(because) => {
            ledger.skip(*message, because, &mut trail);
            skipped += 1;
            false
        }
        None => true,
    });
    let envelopes: Vec<_> = envelopes
        .iter()
        .zip(&taken)
        .filter(|(_, id)| people.iter().any(|(message, ..)| message == *id))
        .map(|(envelope, _)| envelope)
        .collect();
    let from = limits::From {
        business: ctx.business,
        number: &number,
        portfolio: &first.portfolio,
        daily_recipients: first.daily_recipients,
        urgent: false,
    };
    let marks: Vec<_> = people.iter().map(|(.., mark)| mark.clone()).collect();
    let places = if marks.is_empty() { Vec::new() } else { limits::ask(ctx, from, &marks).await? };
    let (mut ready, mut later, mut shortest) = (Vec::new(), Vec::new(), None::<Duration>);
    let mut portfolio = None;
    for ((message, to, content, _), (place, envelope)) in people.into_iter().zip(places.iter().zip(envelopes)) {
        match place {
            Place::At(at) => {
                let language: Language =
                    envelope.language.parse().map_err(|_| Error::Unreadable(message, "language"))?;
                let attempts = ledger.get(message)?.attempts.last().map_or(1, |last| last.number + 1);
                let reference = Reference::new(message, attempts, ctx.deps.chance.as_ref());
                let Some(attempt) = ledger.begin(message, &reference, (ctx.job, ctx.attempt)) else { continue };
                trail.note(words::MESSAGE_ATTEMPTED, message, json!({ "attempt": attempt }));
                let message_out = outgoing(to, reference, &content, language);
                ready.push(Ready { attempt: (message, attempt), at: *at, message: message_out });
            }
            Place::Later { scope: "pair", wait } => later.push((message, now + rules::delta(*wait))),
            Place::Later { scope: "portfolio", wait } => portfolio = Some(*wait),
            Place::Later { wait, .. } => shortest = Some(shortest.map_or(*wait, |known| known.min(*wait))),
        }
    }
    if ready.is_empty() && later.is_empty() && skipped == 0 {
        tx.rollback().await?;
        return Ok(Wave::Wait(portfolio.or(shortest).unwrap_or(Duration::from_millis(50))));
    }
    for (message, until) in later {
        ledger.put_off(message, until);
    }
    ledger.write(&mut tx, ctx).await?;
    trail.write(&mut tx).await?;
    tx.commit().await?;
    ctx.step("messaging.wave_begun").await;
    // Before the look, so that what follows a look that was just too early is over in time all the same.
    let latest = Instant::now() + LATEST_POST;
    let outcomes = if may_go_on(ctx, id).await? {
        post_all(ctx, from, &sender, ready, latest).await?
    } else {
        let halted = || SendOutcome::NotSent(Failure::new("the campaign was halted before it was posted"));
        ready.into_iter().map(|ready| (ready.attempt, halted())).collect()
    };
    ctx.step("messaging.wave_posted").await;
    record(ctx, &campaign, &probes, &outcomes).await?;
    Ok(Wave::Sent)
}

/// What a law wants said does not wait behind what holds its first way: its other ways are looked at in their time.
async fn look_elsewhere(conn: &mut sqlx::PgConnection, campaign: &Campaign, now: DateTime<Utc>) -> Result<(), Error> {
    if campaign.class == MessageClass::Statutory {
        store::aim_waiting(conn, campaign.campaign_id, now).await?;
    }
    Ok(())
}

/// Whether the campaign's number, account and words may be used now.
async fn gate(
    conn: &mut sqlx::PgConnection,
    ctx: &JobContext,
    envelope: &Envelope,
    campaign: &Campaign,
) -> Result<Gate, Error> {
    let words = (campaign.template.as_str(), envelope.language.as_str());
    let line = Line::new(&envelope.number, &envelope.waba_id, envelope.own_app, words);
    holds::gate(conn, (ctx.business, campaign.class), &line, ctx.now()).await
}

fn outgoing(
    to: Phone,
    reference: Reference,
    content: &crate::messaging::Content,
    language: Language,
) -> OutgoingMessage {
    OutgoingMessage { to, reference: reference.0, body: content.body(language, None) }
}

/// Whether nobody has halted the campaign since the wave began: judging and committing it takes its time.
async fn may_go_on(ctx: &JobContext, id: CampaignId) -> Result<bool, Error> {
    let mut conn = ctx.begin_to_read().await?;
    let campaign = store::find(&mut conn, Some(ctx.business), id).await?;
    Ok(campaign.is_some_and(|now| matches!(now.state, CampaignState::Running | CampaignState::Done)))
}

/// Posts each message at its place, none of them after `latest`.
async fn post_all(
    ctx: &JobContext,
    from: limits::From<'_>,
    sender: &Sender,
    ready: Vec<Ready>,
    latest: Instant,
) -> Result<Vec<((MessageId, i32), SendOutcome)>, Error> {
    let posts: FuturesUnordered<_> = ready
        .into_iter()
        .map(|ready| async move {
            let outcome = match limits::wait_for(ctx, from, ready.at, latest).await {
                Ok(true) => ctx.deps.carrier.send(sender, &ready.message).await,
                Ok(false) => SendOutcome::NotSent(Failure::new("held up on this machine before it was posted")),
                Err(_) => SendOutcome::NotSent(Failure::new("no place in the rate could be asked for")),
            };
            (ready.attempt, outcome)
        })
        .collect();
    Ok(posts.collect().await)
}

/// Writes down what came of a wave; a late holder's transaction is refused by its lease.
async fn record(
    ctx: &JobContext,
    campaign: &Campaign,
    probes: &[Uuid],
    outcomes: &[((MessageId, i32), SendOutcome)],
) -> Result<(), Error> {
    let by = ctx.by(SendWave::KIND);
    let vault = &ctx.deps.vault;
    let mut tx = ctx.begin().await?;
    let mut trail = Trail::of(ctx, SendWave::KIND);
    let ids = outcomes.iter().map(|((id, _), _)| *id);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, ids, ctx.now()).await?;
    let mut accepted = Vec::new();
    for (attempt, outcome) in outcomes {
        let mark = ledger::mark_of(&mut tx, vault, ctx.business, outcome).await?;
        let next = ledger.answer(*attempt, outcome, mark.as_deref(), &mut trail);
        if let SendOutcome::Accepted(receipt) = outcome {
            accepted.push((*attempt, receipt.wamid.clone()));
        }
        if let Some(rules::Next::Again(wait) | rules::Next::Hold(_, wait)) = next {
            ledger.put_off(attempt.0, ctx.now() + rules::delta(wait));
        }
    }
    ledger::apply_early(&mut tx, ctx, &mut ledger, &accepted, &mut trail).await?;
    if !probes.is_empty() && !accepted.is_empty() {
        holds::release(&mut tx, ctx.business, probes, "carried", &by).await?;
    }
    let signs: Vec<_> = ledger
        .signs()
        .iter()
        .map(|sign| Ok((sign, &ledger.get(sign.message)?.message)))
        .collect::<Result<_, Error>>()?;
    holds::react(&mut tx, ctx.business, &signs, &by).await?;
    send::react_to_limits(&mut tx, ctx, &signs).await?;
    inbound::note_recipients(&mut tx, ctx, &signs, &by).await?;
    ledger.write(&mut tx, ctx).await?;
    rest_after(&mut tx, campaign, &by).await?;
    trail.write(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Lets a campaign rest once as many messages were begun as it was told to.
async fn rest_after(
    conn: &mut sqlx::PgConnection,
    campaign: &Campaign,
    by: &crate::evidence::By<'_>,
) -> Result<(), Error> {
    let Some(limit) = campaign.rests_after else { return Ok(()) };
    let counts = store::count(conn, campaign.campaign_id).await?;
    if super::begun(&counts) >= limit
        && store::lock(conn, campaign.business_id, campaign.campaign_id)
            .await?
            .is_some_and(|now| now.state == CampaignState::Running && now.rests_after.is_some())
    {
        store::set_state(conn, campaign.campaign_id, CampaignState::Paused, Some("wave"), by.now).await?;
        let of = (campaign.business_id, campaign.campaign_id);
        super::record(conn, words::CAMPAIGN_PAUSED, of, json!({ "because": "wave", "messages": counts }), by).await?;
    }
    Ok(())
}

/// Ends what nobody is to be told any more, a part at a time.
async fn expire(ctx: &JobContext, campaign: &Campaign) -> Result<Wave, Error> {
    let mut tx = ctx.begin().await?;
    let taken = store::take(&mut tx, campaign.campaign_id, JUDGED, ctx.now() + TimeDelta::days(36_500)).await?;
    let mut trail = Trail::of(ctx, SendWave::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, taken.iter().copied(), ctx.now()).await?;
    for id in &taken {
        ledger.fail(*id, (None, Some(crate::messaging::EXPIRED)), "expired", &mut trail);
    }
    ledger.write(&mut tx, ctx).await?;
    trail.write(&mut tx).await?;
    tx.commit().await?;
    Ok(if taken.is_empty() { Wave::Over } else { Wave::Sent })
}

/// Ends this stream; the campaign is done when nothing of it waits, for whoever is last.
async fn finish(ctx: &JobContext, id: CampaignId) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    if let Some(campaign) = store::lock(&mut tx, ctx.business, id).await?
        && campaign.state == CampaignState::Running
        && store::find_waiting(&mut tx, id).await?.is_none()
        && store::list_open(&mut tx, id, 1).await?.is_empty()
    {
        let by = ctx.by(SendWave::KIND);
        store::set_state(&mut tx, id, CampaignState::Done, None, by.now).await?;
        let counts = store::count(&mut tx, id).await?;
        super::record(&mut tx, words::CAMPAIGN_DONE, (ctx.business, id), json!({ "messages": counts }), &by).await?;
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

/// Finds out what became of a campaign's attempts that nobody can tell the end of, as `messaging.reconcile` does of one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReconcileWaves {
    /// Which campaign.
    pub campaign_id: CampaignId,
}

impl Job for ReconcileWaves {
    const KIND: &'static str = "messaging.reconcile_waves";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.campaign_id;
        let mut tx = ctx.begin().await?;
        let open = store::list_open(&mut tx, id, JUDGED).await?;
        let full = i64::try_from(open.len()).unwrap_or(JUDGED) >= JUDGED;
        let mut ledger = Ledger::lock(&mut tx, ctx.business, open.iter().map(|(id, ..)| *id), ctx.now()).await?;
        let mut trail = Trail::of(ctx, Self::KIND);
        let mut first: Option<DateTime<Utc>> = None;
        for (message, number, _) in &open {
            let looked = reconcile::look(&mut tx, ctx, &mut ledger, (*message, *number), &mut trail).await?;
            if let Some(until) = looked {
                first = Some(first.map_or(until, |known| known.min(until)));
            }
        }
        ledger.write(&mut tx, ctx).await?;
        trail.write(&mut tx).await?;
        // Streams may be gone by now, and the end of the campaign needs one.
        if let Some(campaign) = store::lock(&mut tx, ctx.business, id).await?
            && campaign.state == CampaignState::Running
            && first.is_none()
        {
            come_again(&mut tx, (ctx.business, id, campaign.class), ctx.now()).await?;
        }
        ctx.step("messaging.waves_reconciled").await;
        if let Some(until) = first.or(full.then(|| ctx.now())) {
            tx.commit().await?;
            return Err(Error::CampaignWaits { campaign: id, until });
        }
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}

/// Plans a stream for what a campaign is to try again: its own may have ended. One for all that ask within a second.
pub(in crate::messaging) async fn come_again(
    conn: &mut sqlx::PgConnection,
    (business, id, class): (BusinessId, CampaignId, MessageClass),
    at: DateTime<Utc>,
) -> Result<(), Error> {
    let wave = NewJob::of(business, &SendWave { campaign_id: id, stream: 0 })?;
    let key = format!("{id}/{}", at.timestamp());
    queue::enqueue(conn, &wave.lane(super::lane_of(class)).key(key).run_at(at)).await?;
    Ok(())
}

/// Lets every campaign of a business look again: something that held it is gone.
pub(in crate::messaging) async fn wake(
    conn: &mut sqlx::PgConnection,
    business: BusinessId,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for (id, class) in store::list_running(conn, business).await? {
        come_again(conn, (business, id, class), now).await?;
    }
    Ok(())
}

/// How many messages moved from where to where, for the counts of their campaigns.
pub(in crate::messaging) async fn count_moves(
    conn: &mut sqlx::PgConnection,
    (business, chance): (BusinessId, &dyn Chance),
    moves: &[(CampaignId, State, State)],
) -> Result<(), Error> {
    let mut sums = std::collections::BTreeMap::<(Uuid, &str), i64>::new();
    for (id, from, to) in moves {
        *sums.entry((id.0, from.as_str())).or_default() -= 1;
        *sums.entry((id.0, to.as_str())).or_default() += 1;
    }
    let sums: Vec<_> =
        sums.into_iter().filter(|(_, by)| *by != 0).map(|((id, state), by)| (CampaignId(id), state, by)).collect();
    store::add_counts(conn, business, &sums, chance).await
}
