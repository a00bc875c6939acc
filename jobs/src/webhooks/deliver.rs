use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use tokio::{task::JoinSet, time::Instant};
use zeroize::Zeroizing;

use super::{
    DeliveryState, EndpointId, EndpointState, Error, EventId,
    manage::{self, Which},
    rules::{self, Turn},
    sealed::{self, Text},
    sign,
    store::{
        deliveries::{self, Ended, Held},
        endpoints::{self, Row},
    },
    tracks::Tracks,
};
use crate::{
    evidence::words,
    outbound::webhook::{WebhookCall, WebhookOutcome, WebhookUrl},
    queue::{self, Done, Job, JobContext, Lane, NewJob, Slots},
};

/// One run begins nothing new after so long, so that other endpoints have their turn, and so that a process that ends
/// finds what is under way answered in its time of grace.
const RUN_FOR: Duration = Duration::from_secs(4);
/// After something was delivered the next look is so soon: more tends to follow, and whoever emits it in between needs
/// no job of its own.
const LINGER: TimeDelta = TimeDelta::seconds(1);
/// While a run lasts it promises a look that soon ahead, so that whoever emits needs no job of its own, and renews that so
/// often.
const PROMISE: TimeDelta = TimeDelta::milliseconds(1400);
const RENEW: Duration = Duration::from_millis(700);
/// Before another look for a place, plus as much again by chance.
const NO_PLACE: TimeDelta = TimeDelta::milliseconds(500);
/// Deliveries that one claim takes for each that may be under way.
const AHEAD: usize = 4;

/// Delivers what waits for one endpoint: the one job that does, over all machines.
///
/// Steps: what a dead forerunner had in hand goes back; claim a few deliveries; post them, as many at once as the
/// settings say, one alone while the endpoint fails; record what came of each as it comes; claim on. At the end the next
/// look is planned for when the next delivery is due. Killed at any point, deliveries stay `sending` and are begun anew by
/// the next run under the same `webhook-id`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deliver {
    /// The endpoint.
    pub endpoint_id: EndpointId,
}

impl Deliver {
    /// A run has ended after this time, or died.
    pub(super) const LONGEST_RUN: TimeDelta = TimeDelta::seconds(Self::SETTINGS.timeout.as_secs().cast_signed() + 20);
}

impl Job for Deliver {
    const KIND: &'static str = "webhooks.deliver";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: queue::Settings = queue::Settings {
        timeout: Duration::from_secs(120),
        slots: Slots::SerialBy("endpoint_id"),
        ..queue::Settings::DEFAULT
    };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.endpoint_id;
        let Some(row) = begin(ctx, id).await? else { return Ok(Done::OK) };
        let sending = &ctx.deps.webhooks;
        let answering = row.answering();
        let mut worked = Worked::default();
        if !answering.is_resting(ctx.now()) {
            let Some(_place) = sending.place(answering.is_down()) else {
                let wait = NO_PLACE.num_milliseconds() + jitter_ms(ctx, NO_PLACE);
                return Err(Error::Busy { endpoint: id, until: ctx.now() + TimeDelta::milliseconds(wait) });
            };
            let window = if row.failures > 0 { 1 } else { sending.settings.concurrency.max(1) };
            let run = Run { ctx, id, window, stop: false, until: Instant::now() + RUN_FOR, worked };
            worked = run.work().await?;
        }
        end(ctx, id, worked).await
    }
}

fn jitter_ms(ctx: &JobContext, most: TimeDelta) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "half a second")]
    let millis = (most.num_milliseconds() as f64 * ctx.deps.chance.unit()) as i64;
    millis
}

fn which(ctx: &JobContext, endpoint: EndpointId) -> Which {
    Which { business: Some(ctx.business), endpoint }
}

/// The endpoint, if it is told anything; what a dead worker had in hand for it goes back.
async fn begin(ctx: &JobContext, id: EndpointId) -> Result<Option<Row>, Error> {
    let mut tx = ctx.begin().await?;
    let row = endpoints::lock(&mut tx, which(ctx, id)).await?;
    if row.is_some() && deliveries::take_back(&mut tx, id, ctx.now()).await? > 0 {
        tx.commit().await?;
    }
    Ok(row.filter(|row| row.state != EndpointState::Disabled))
}

/// What a run did.
#[derive(Clone, Copy, Default)]
struct Worked {
    /// Something was posted.
    posted: bool,
    /// The look it promised last; no other job stands behind it.
    promised: Option<DateTime<Utc>>,
}

/// Plans the next look, if there is anything to wait for or somebody relies on one, and ends the job with it.
async fn end(ctx: &JobContext, id: EndpointId, worked: Worked) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    if let Some(row) = endpoints::lock(&mut tx, which(ctx, id)).await?
        && row.state != EndpointState::Disabled
    {
        let now = ctx.now();
        let resting = row.wait_until.filter(|until| *until > now);
        // While it rests nothing is begun, and when its rest is over whatever is due then is.
        let due = deliveries::next_due(&mut tx, id).await?.map(|due| resting.unwrap_or(due));
        let promised = worked.promised.filter(|at| *at > now);
        let linger = (worked.posted && resting.is_none()).then_some(now + LINGER);
        if let Some(at) = due.into_iter().chain(promised).chain(linger).min() {
            let at = at.max(now);
            // One that is planned anyway, and early enough, sees to it.
            let is_planned = |planned| planned > now && planned <= at && Some(planned) != promised;
            if !row.next_look_at.is_some_and(is_planned) {
                let job = NewJob::of(ctx.business, &Deliver { endpoint_id: id })?.run_at(at);
                queue::enqueue(&mut tx, &job).await?;
                endpoints::set_next_look(&mut tx, id, at).await?;
            }
        }
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

/// Where to post, and what signs.
struct Target {
    url: WebhookUrl,
    secrets: Arc<[SecretString]>,
}

/// A delivery that may be begun.
struct Ready {
    delivery_id: i64,
    event_id: EventId,
    number: i32,
    tries: i32,
    body: Zeroizing<Vec<u8>>,
}

/// One that was.
struct Posted {
    object: String,
    delivery_id: i64,
    number: i32,
    tries: i32,
    started_at: DateTime<Utc>,
    outcome: WebhookOutcome,
}

struct Run<'a> {
    ctx: &'a JobContext,
    id: EndpointId,
    /// How many may be under way.
    window: usize,
    /// Nothing more is begun.
    stop: bool,
    until: Instant,
    worked: Worked,
}

impl Run<'_> {
    async fn work(mut self) -> Result<Worked, Error> {
        let (mut tracks, mut under_way) = (Tracks::new(), JoinSet::new());
        let (mut target, mut more) = (None, true);
        loop {
            let begins = |run: &Self| !run.stop && !run.ctx.cancelled.is_cancelled() && Instant::now() < run.until;
            if more && begins(&self) && tracks.waiting() == 0 && under_way.len() < self.window {
                let most = if self.window == 1 { 1 } else { self.window * AHEAD };
                let claimed = self.claim(most).await?;
                self.ctx.step("webhooks.claimed").await;
                more = claimed.as_ref().is_some_and(|(_, ready)| ready.len() == most);
                if let Some((to, ready)) = claimed {
                    target = Some(to);
                    for (object, one) in ready {
                        tracks.push(object, one);
                    }
                }
            }
            while begins(&self)
                && under_way.len() < self.window
                && let (Some(target), Some((object, ready))) = (&target, tracks.begin())
            {
                under_way.spawn(self.post(target, object, ready));
            }
            let first = loop {
                tokio::select! {
                    first = under_way.join_next() => break first,
                    () = tokio::time::sleep(RENEW) => self.promise().await?,
                }
            };
            let Some(first) = first else { break };
            let mut posted: Vec<Posted> = first.into_iter().collect();
            while let Some(another) = under_way.try_join_next() {
                posted.extend(another);
            }
            self.worked.posted = true;
            self.ctx.step("webhooks.posted").await;
            for one in &posted {
                tracks.ended(&one.object);
            }
            self.record(&posted).await?;
            self.ctx.step("webhooks.recorded").await;
            // What was emitted meanwhile is due too.
            more |= tracks.waiting() == 0;
        }
        let unbegun: Vec<i64> = tracks.give_back().map(|ready: Ready| ready.delivery_id).collect();
        if !unbegun.is_empty() {
            let mut tx = self.ctx.begin().await?;
            deliveries::release(&mut tx, &unbegun).await?;
            tx.commit().await?;
        }
        Ok(self.worked)
    }

    /// Lets whoever emits know that this run, or one after it, looks again soon.
    async fn promise(&mut self) -> Result<(), Error> {
        let mut tx = self.ctx.begin().await?;
        self.promise_in(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    async fn promise_in(&mut self, tx: &mut PgConnection) -> Result<(), Error> {
        // As the database keeps it, which counts microseconds: it is compared with what is read back.
        let at = (self.ctx.now() + PROMISE).trunc_subsecs(6);
        endpoints::set_next_look(tx, self.id, at).await?;
        self.worked.promised = Some(at);
        Ok(())
    }

    /// Takes what is due, with where it goes as that is now; nothing where the endpoint is told nothing any more.
    async fn claim(&mut self, most: usize) -> Result<Option<(Target, Vec<(String, Ready)>)>, Error> {
        let Self { ctx, id, .. } = *self;
        let now = ctx.now();
        let mut tx = ctx.begin().await?;
        let Some(row) = endpoints::lock(&mut tx, which(ctx, id)).await? else { return Ok(None) };
        if row.state == EndpointState::Disabled || row.answering().is_resting(now) {
            return Ok(None);
        }
        let target = match self.target(&mut tx, &row).await {
            Ok(Some(target)) => target,
            outcome => {
                // Taken in a sandbox, or by rules that were laxer; or its keys are gone.
                let reason = match outcome {
                    Ok(_) => "address",
                    Err(error) if error.is_for_ever() => "unreadable",
                    Err(error) => return Err(error),
                };
                endpoints::disable(&mut tx, id, reason, now).await?;
                let (by, details) = (ctx.by(Deliver::KIND), json!({ "reason": reason }));
                manage::note(&mut tx, (ctx.business, id), words::WEBHOOK_ENDPOINT_DISABLED, details, &by).await?;
                tx.commit().await?;
                tracing::error!(webhooks.endpoint_id = %id, reason, "a webhook endpoint had to be disabled");
                return Ok(None);
            }
        };
        let (mut ready, mut lost) = (Vec::new(), Vec::new());
        for held in deliveries::claim(&mut tx, id, most, now).await? {
            let Held { delivery_id, event_id, object_id, number, tries, body_sealed, .. } = held;
            match sealed::open_body(&mut tx, &ctx.deps.vault, (ctx.business, event_id), &body_sealed).await {
                Ok(body) => ready.push((object_id, Ready { delivery_id, event_id, number, tries, body })),
                // One whose key is gone holds up no other.
                Err(error) if error.is_for_ever() => lost.push(Ended::unreadable((delivery_id, number, tries), now)),
                Err(error) => return Err(error),
            }
        }
        if !lost.is_empty() {
            tracing::error!(webhooks.endpoint_id = %id, lost = lost.len(), "webhook events do not open any more");
            deliveries::settle(&mut tx, ctx.business, &lost, now).await?;
        }
        // One that found nothing promises nothing: else looks would follow each other for ever.
        if !ready.is_empty() {
            self.promise_in(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(Some((target, ready)))
    }

    /// Where the endpoint is and what signs for it now; nothing where its address may not be called.
    async fn target(&self, tx: &mut PgConnection, row: &Row) -> Result<Option<Target>, Error> {
        let Self { ctx, id, .. } = *self;
        let vault = &ctx.deps.vault;
        let sealed_url = row.url_sealed.as_deref().ok_or(Error::Unreadable(id, "url_sealed"))?;
        let url = sealed::open_text(&mut *tx, vault, (ctx.business, id), Text::Url, sealed_url).await?;
        let Ok(url) = WebhookUrl::parse(&url, ctx.deps.webhooks.settings.loopback) else { return Ok(None) };
        let mut secrets = Vec::new();
        for secret in endpoints::list_secrets(&mut *tx, id, ctx.now()).await? {
            let whose = (ctx.business, secret.secret_id, id);
            secrets.push(sealed::open_secret(&mut *tx, vault, whose, &secret.secret_sealed).await?);
        }
        Ok(Some(Target { url, secrets: secrets.into() }))
    }

    /// Posts one delivery, signed for the instant at which it begins.
    fn post(&self, target: &Target, object: String, ready: Ready) -> impl Future<Output = Posted> + Send + use<> {
        let (url, secrets) = (target.url.clone(), Arc::clone(&target.secrets));
        let deps = Arc::clone(&self.ctx.deps);
        let Ready { delivery_id, event_id, number, tries, body } = ready;
        async move {
            let started_at = deps.clock.now();
            let (id, timestamp) = (event_id.to_string(), started_at.timestamp());
            let signature = sign::signatures(&secrets, &id, timestamp, &body);
            let body = Bytes::copy_from_slice(&body);
            let outcome = deps.webhooks.sender.post(&WebhookCall { url, id, timestamp, signature, body }).await;
            Posted { object, delivery_id, number, tries, started_at, outcome }
        }
    }

    /// Writes down what came of these, and what it makes of the endpoint.
    async fn record(&mut self, posted: &[Posted]) -> Result<(), Error> {
        let Self { ctx, id, .. } = *self;
        let settings = &ctx.deps.webhooks.settings;
        let (now, by) = (ctx.now(), ctx.by(Deliver::KIND));
        let mut tx = ctx.begin().await?;
        let row = endpoints::lock(&mut tx, which(ctx, id)).await?;
        let mut answering = row.as_ref().map(Row::answering);
        let (mut ended, mut turn, mut gone) = (Vec::new(), Turn::Goes, false);
        for one in posted {
            let verdict = Verdict::of(one, now);
            gone |= verdict.gone;
            let was_paused = answering.as_ref().is_some_and(|answering| answering.is_paused);
            if let Some(answering) = &mut answering {
                let next = match verdict.cause {
                    None => answering.succeeded(now),
                    Some(cause) => answering.failed(cause, verdict.asked, (now, ctx.deps.chance.unit()), settings),
                };
                if next != Turn::Goes {
                    turn = next;
                }
            }
            self.window = match verdict.cause {
                None => (self.window * 2).min(settings.concurrency.max(1)),
                Some(_) => 1,
            };
            let standing = Standing {
                was_paused,
                is_paused: answering.as_ref().is_some_and(|answering| answering.is_paused),
                wait_until: answering.as_ref().and_then(|answering| answering.wait_until),
            };
            ended.push(verdict.ended(one, &standing, (now, ctx.deps.chance.unit())));
        }
        deliveries::settle(&mut tx, ctx.business, &ended, now).await?;
        if let Some(row) = &row {
            self.remember(&mut tx, row, answering.as_ref(), now).await?;
            let details = match (gone, turn) {
                (true, _) => {
                    endpoints::disable(&mut tx, id, "gone", now).await?;
                    Some((words::WEBHOOK_ENDPOINT_DISABLED, json!({ "reason": "gone" })))
                }
                (false, Turn::Pauses) => {
                    let failures = answering.as_ref().map(|answering| answering.failures);
                    Some((words::WEBHOOK_ENDPOINT_PAUSED, json!({ "failures": failures })))
                }
                (false, Turn::Resumes) => Some((words::WEBHOOK_ENDPOINT_RESUMED, json!({}))),
                (false, Turn::Goes) => None,
            };
            if let Some((word, details)) = details.filter(|_| row.state != EndpointState::Disabled) {
                tracing::warn!(webhooks.endpoint_id = %id, origin = row.origin, "{}", word.as_str());
                manage::note(&mut tx, (ctx.business, id), word, details, &by).await?;
            }
        }
        tx.commit().await?;
        self.stop |= gone || row.is_none_or(|row| row.state == EndpointState::Disabled);
        Ok(())
    }

    async fn remember(
        &mut self,
        tx: &mut PgConnection,
        row: &Row,
        answering: Option<&rules::Answering>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        if let Some(answering) = answering {
            endpoints::save_answering(tx, row.endpoint_id, answering, now).await?;
            self.stop |= answering.is_resting(now);
        }
        Ok(())
    }
}

/// How the endpoint stands before and after an attempt.
struct Standing {
    was_paused: bool,
    is_paused: bool,
    wait_until: Option<DateTime<Utc>>,
}

/// What one outcome means.
struct Verdict {
    status: Option<i16>,
    /// None: it was delivered.
    cause: Option<&'static str>,
    /// The receiver asks for peace.
    asked: Option<TimeDelta>,
    /// It wants to hear nothing any more.
    gone: bool,
}

impl Verdict {
    fn of(posted: &Posted, now: DateTime<Utc>) -> Self {
        match &posted.outcome.answer {
            Err(failure) => Self { status: None, cause: Some(failure.as_str()), asked: None, gone: false },
            Ok(answer) => Self {
                status: i16::try_from(answer.status).ok(),
                cause: (!(200..=299).contains(&answer.status)).then_some("status"),
                asked: rules::asked_pause(answer.status, answer.retry_after.as_deref(), now),
                gone: answer.status == 410,
            },
        }
    }

    /// Where the delivery goes from here. What failed while its endpoint was paused was a question whether it lives, and
    /// counts against nothing: everything waits.
    fn ended(&self, posted: &Posted, standing: &Standing, (now, chance): (DateTime<Utc>, f64)) -> Ended {
        let failed = self.cause.is_some();
        let tries = posted.tries + i32::from(failed && !standing.was_paused);
        let retry = rules::retry_after_tries(tries.max(1), chance).map(|pause| now + pause);
        let until = standing.wait_until.unwrap_or(now);
        let (state, next_at) = match (failed, retry) {
            (false, _) => (DeliveryState::Delivered, now),
            (true, _) if self.gone => (DeliveryState::Failed, now),
            // What came before it, and what comes after, has its turn as a question first.
            (true, _) if standing.is_paused => (DeliveryState::Pending, until),
            (true, Some(at)) => (DeliveryState::Pending, at.max(until)),
            (true, None) => (DeliveryState::Failed, now),
        };
        Ended {
            delivery_id: posted.delivery_id,
            number: posted.number,
            started_at: posted.started_at,
            latency_ms: i32::try_from(posted.outcome.took.as_millis()).unwrap_or(i32::MAX),
            status: self.status,
            cause: self.cause,
            state,
            tries,
            next_at,
        }
    }
}
