//! Messaging: a number's rate held to the message by several workers, a code that overtakes a million, webhooks kept.
//!
//! The carrier here is a few lines that note when each POST arrived and answer a receipt: over HTTP, so that what is
//! counted is what a carrier would count.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{Json, Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use chrono::TimeDelta;
use muneem_jobs::{
    Deps,
    evidence::By,
    messaging::{
        self, Account, Content, Credentials, Language, MessageClass, NewMessage, Policy, SignInCode, SignInWarning,
        campaign::{self, CampaignId, CampaignState, NewCampaign, NewPerson, PEOPLE_AT_ONCE},
    },
    outbound::{Chance, Clock, Phone, carrier::NumberId},
    people::BusinessId,
    queue::Lane,
    vault::Vault,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Figure, Scratch, percentile, queue::Nowhere};
use crate::{
    http::whatsapp::{Intake, routes},
    outbound::{
        chance::OsChance,
        clock::SystemClock,
        http::{Timeouts, client},
        whatsapp::{CloudApi, Settings as CloudSettings},
    },
    queue as workers,
};

/// Workers that share a number.
const WORKERS: usize = 4;
/// Seconds of full rate that a round lasts, about.
const ROUND_SECS: u64 = 8;
/// Messages that wait while codes overtake them.
const WAITING: u64 = 1_000_000;
/// Codes asked for, one after the other.
const CODES: usize = 400;
/// Webhooks posted.
const WEBHOOKS: usize = 60_000;
/// Connections that post them.
const POSTERS: usize = 64;

/// What the carrier saw: when each POST arrived, and what is told of it.
#[derive(Default)]
struct Seen {
    arrived: Vec<Instant>,
    codes: HashMap<String, Instant>,
}

#[derive(Clone, Default)]
struct Stand(Arc<Mutex<Seen>>);

impl Stand {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most POSTs that arrived within any one second.
    fn peak(&self) -> usize {
        let seen = self.seen();
        let mut arrived = seen.arrived.clone();
        arrived.sort();
        let (mut first, mut peak) = (0, 0);
        for (last, at) in arrived.iter().enumerate() {
            while *at - arrived[first] >= Duration::from_secs(1) {
                first += 1;
            }
            peak = peak.max(last - first + 1);
        }
        peak
    }

    /// POSTs a second between the first and the last.
    fn rate(&self) -> f64 {
        let seen = self.seen();
        let (Some(first), Some(last)) = (seen.arrived.iter().min(), seen.arrived.iter().max()) else { return 0.0 };
        (seen.arrived.len() - 1) as f64 / (*last - *first).as_secs_f64().max(0.001)
    }
}

#[derive(Deserialize)]
struct Posted {
    to: String,
}

async fn take(State(stand): State<Stand>, body: Bytes) -> (StatusCode, Json<Value>) {
    let at = Instant::now();
    let Ok(posted) = serde_json::from_slice::<Posted>(&body) else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": { "code": 100 } })));
    };
    let mut seen = stand.seen();
    seen.arrived.push(at);
    seen.codes.entry(posted.to).or_insert(at);
    let number = seen.arrived.len();
    drop(seen);
    (StatusCode::OK, Json(json!({ "messages": [{ "id": format!("wamid.{number}.{}", number * 7919) }] })))
}

/// A carrier that takes everything.
async fn carrier(stop: &CancellationToken) -> anyhow::Result<(Stand, SocketAddr)> {
    let stand = Stand::default();
    let router = Router::new().route("/{version}/{number}/messages", post(take)).with_state(stand.clone());
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let ended = stop.clone();
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(ended.cancelled_owned()).await });
    Ok((stand, address))
}

/// A shop that sends through that carrier.
struct Shop<'a> {
    scratch: &'a Scratch,
    deps: Arc<Deps>,
    business: BusinessId,
    number: NumberId,
}

fn credentials() -> Credentials {
    Credentials {
        access_token: "bench-access-token".to_owned().into(),
        app_secrets: vec!["bench-app-secret".to_owned().into()],
        verify_token: "bench-verify-token".to_owned().into(),
    }
}

impl<'a> Shop<'a> {
    async fn open(scratch: &'a Scratch, at: SocketAddr, (nth, rate): (u32, i32)) -> anyhow::Result<Shop<'a>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let chance: Arc<dyn Chance> = Arc::new(OsChance);
        let vault = Vault::with_root(&scratch.db, &[7; 32].into(), Arc::clone(&clock), Arc::clone(&chance));
        let carrier = CloudApi::new(&CloudSettings {
            base_url: format!("http://{at}"),
            api_version: "v25.0".to_owned(),
            credentials: Some(credentials()),
            prove_secret: true,
            timeouts: Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(30) },
        })?;
        let deps = Deps {
            db: scratch.db.clone(),
            objects: Arc::new(Nowhere),
            carrier: Arc::new(carrier),
            mailer: Arc::new(crate::outbound::mail::NotConfigured),
            vault: Arc::new(vault),
            messaging: messaging::Settings::DEFAULT,
            webhooks: muneem_jobs::webhooks::Sending::nowhere(),
            clock,
            chance,
        };
        let now = deps.clock.now();
        let business = BusinessId(deps.chance.uuid_v7(now));
        let handle = format!("shop-{nth}");
        sqlx::query("insert into muneem.people_businesses (business_id, handle, legal_name, created_at) values ($1, $2, $2, now())")
            .bind(business.0)
            .bind(handle)
            .execute(&scratch.db)
            .await?;
        let number = NumberId::parse(&format!("10654035224{nth:04}")).map_err(anyhow::Error::msg)?;
        let account = Account {
            business,
            number: number.clone(),
            waba_id: format!("10229012934{nth:04}"),
            display_phone: Phone::parse(&format!("+9198000{nth:05}"))?,
        };
        let mut conn = scratch.db.acquire().await?;
        messaging::set_account(&mut conn, &account, &By::operator(now, &OsChance)).await?;
        sqlx::query("update muneem.messaging_accounts set messages_per_second = $2 where phone_number_id = $1")
            .bind(number.as_str())
            .bind(rate)
            .execute(&scratch.db)
            .await?;
        Ok(Self { scratch, deps: Arc::new(deps), business, number })
    }

    fn by(&self) -> By<'_> {
        By::operator(self.deps.clock.now(), &*self.deps.chance)
    }

    /// A campaign to so many people, nobody twice.
    async fn campaign(&self, people: u64) -> anyhow::Result<CampaignId> {
        let mut conn = self.scratch.db.acquire().await?;
        let new = NewCampaign {
            business: self.business,
            name: "bench".to_owned(),
            purpose: "service.bench".to_owned(),
            class: MessageClass::Transactional,
            template: "sign_in_warning".to_owned(),
            rests_after: None,
            expires_at: self.deps.clock.now() + TimeDelta::days(2),
        };
        let id = campaign::create(&mut conn, &new, &self.by()).await?;
        let mut left = 0..people;
        loop {
            let some: Vec<_> = left.by_ref().take(PEOPLE_AT_ONCE).map(person).collect::<Result<_, _>>()?;
            if some.is_empty() {
                return Ok(id);
            }
            campaign::add_people(&mut conn, &self.deps.vault, (self.business, id), &some, &self.by()).await?;
        }
    }

    async fn start(&self, id: CampaignId) -> anyhow::Result<()> {
        let mut conn = self.scratch.db.acquire().await?;
        Ok(campaign::start(&mut conn, (self.business, id), &self.by()).await?)
    }

    async fn state(&self, id: CampaignId) -> anyhow::Result<(CampaignState, Value)> {
        let mut conn = self.scratch.db.acquire().await?;
        let found = campaign::find(&mut conn, Some(self.business), id).await?.context("the campaign is gone")?;
        Ok((found.0.state, found.1))
    }

    /// A worker as `serve` runs one.
    fn worker(
        &self,
        nth: usize,
        stop: &CancellationToken,
    ) -> tokio::task::JoinHandle<Result<(), muneem_jobs::queue::Error>> {
        let settings = workers::Settings {
            name: format!("bench-{nth}"),
            lanes: Lane::ALL.to_vec(),
            lease: Duration::from_secs(30),
            concurrency: 8,
            reserved: HashMap::from([(Lane::Otp, 2)]),
            poll: Duration::from_millis(250),
            ageing: Duration::from_secs(10),
            shutdown: Duration::from_secs(5),
            pulse: workers::Pulse::default(),
        };
        let connections = workers::Connections { db: self.scratch.db.clone(), listen: self.scratch.options.clone() };
        let (deps, stop) = (Arc::clone(&self.deps), stop.clone());
        tokio::spawn(async move { workers::run(deps, connections, &muneem_jobs::kinds(), settings, stop).await })
    }
}

fn person(nth: u64) -> anyhow::Result<NewPerson> {
    Ok(NewPerson {
        mail: None,
        to: Phone::parse(&format!("+919{nth:09}"))?,
        content: Content::SignInWarning(SignInWarning {
            name: "Asha".to_owned(),
            business_name: "Sharma Mobiles".to_owned(),
            event: "the shop is open".to_owned(),
            at: "8 November 2026, 10:00".to_owned(),
        }),
        language: Language::En,
    })
}

/// Measures.
pub(super) async fn measure(scratch: &Scratch, tell: &mut (dyn FnMut(&Figure) + Send)) -> anyhow::Result<()> {
    muneem_jobs::queue::sync_kinds(&mut *scratch.db.acquire().await?, &muneem_jobs::kinds()).await?;
    let before = resident()?;
    rate(scratch, (1, 80), ("messaging.rate_80_peak", "messaging.rate_80_used"), tell).await?;
    rate(scratch, (2, 1000), ("messaging.rate_1000_peak", "messaging.rate_1000_used"), tell).await?;
    webhooks(scratch, tell).await?;
    codes(scratch, tell).await?;
    let grown = (resident()? - before) / 1024.0;
    tell(&Figure::at_most("messaging.memory_grown", "MB", grown, 128.0));
    Ok(())
}

/// Kilobytes of this process that lie in memory.
fn resident() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status cannot be read")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// A number's limit: never crossed in any one second, and used.
async fn rate(
    scratch: &Scratch,
    (nth, limit): (u32, i32),
    (peak, used): (&'static str, &'static str),
    tell: &mut (dyn FnMut(&Figure) + Send),
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (stand, at) = carrier(&stop).await?;
    let shop = Shop::open(scratch, at, (nth, limit)).await?;
    let people = u64::try_from(limit)? * ROUND_SECS;
    let id = shop.campaign(people).await?;
    let workers: Vec<_> = (0..WORKERS).map(|nth| shop.worker(nth, &stop)).collect();
    shop.start(id).await?;
    let deadline = Instant::now() + Duration::from_secs(ROUND_SECS * 6);
    while shop.state(id).await?.0 != CampaignState::Done {
        ensure!(Instant::now() < deadline, "the campaign did not end: {}", shop.state(id).await?.1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.cancel();
    for worker in workers {
        worker.await??;
    }
    let posts = stand.seen().arrived.len();
    ensure!(u64::try_from(posts)? == people, "{posts} posts for {people} people");
    tell(&Figure::at_most(peak, "in a second", stand.peak() as f64, f64::from(limit)));
    tell(&Figure::at_least(used, "a second", stand.rate(), f64::from(limit), 0.85));
    Ok(())
}

/// A code is with the carrier at once, whatever else waits.
async fn codes(scratch: &Scratch, tell: &mut (dyn FnMut(&Figure) + Send)) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (stand, at) = carrier(&stop).await?;
    let shop = Shop::open(scratch, at, (3, 80)).await?;
    let id = shop.campaign(WAITING).await?;
    let workers: Vec<_> = (0..2).map(|nth| shop.worker(nth, &stop)).collect();
    shop.start(id).await?;
    // The campaign is under way.
    while stand.seen().arrived.len() < 100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut waits = Vec::with_capacity(CODES);
    for nth in 0..CODES {
        let to = format!("+918{nth:09}");
        let words = (Content::SignInCode(SignInCode { code: "012345".to_owned() }), Language::En);
        let why = (Policy::AtMostOnce, "people.sign_in_code");
        let message = NewMessage {
            expires_at: Some(shop.deps.clock.now() + TimeDelta::minutes(5)),
            ..NewMessage::new(shop.business, Phone::parse(&to)?, words, why)
        };
        let mut tx = scratch.db.begin().await?;
        messaging::request(&mut tx, &shop.deps.vault, &*shop.deps.clock, &*shop.deps.chance, &message).await?;
        tx.commit().await?;
        let committed = Instant::now();
        let deadline = committed + Duration::from_secs(10);
        let arrived = loop {
            if let Some(at) = stand.seen().codes.get(&to) {
                break *at;
            }
            ensure!(Instant::now() < deadline, "a code did not arrive within ten seconds");
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        waits.push(arrived.saturating_duration_since(committed).as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    stop.cancel();
    for worker in workers {
        worker.await??;
    }
    let waiting = shop.state(id).await?.1["queued"].as_u64().unwrap_or(0);
    ensure!(waiting > WAITING * 9 / 10, "only {waiting} messages were waiting at the end");
    tell(&Figure::at_most("messaging.otp_p50", "ms", percentile(&mut waits, 0.5), 50.0));
    tell(&Figure::at_most("messaging.otp_p99", "ms", percentile(&mut waits, 0.99), 50.0));
    tell(&Figure::at_most("messaging.rate_80_peak_beside_codes", "in a second", stand.peak() as f64, 80.0));
    Ok(())
}

/// Webhooks, one update each, durable before they are answered, and applied meanwhile.
async fn webhooks(scratch: &Scratch, tell: &mut (dyn FnMut(&Figure) + Send)) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (_, at) = carrier(&stop).await?;
    let shop = Shop::open(scratch, at, (4, 1000)).await?;
    let intake = Intake {
        db: scratch.db.clone(),
        clock: Arc::clone(&shop.deps.clock),
        chance: Arc::clone(&shop.deps.chance),
        vault: Arc::clone(&shop.deps.vault),
        credentials: Some(credentials()),
        body_limit_bytes: 4 << 20,
    };
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}/webhooks/whatsapp", listener.local_addr()?);
    let ended = stop.clone();
    tokio::spawn(
        async move { axum::serve(listener, routes(intake)).with_graceful_shutdown(ended.cancelled_owned()).await },
    );
    let worker = shop.worker(0, &stop);
    // Signed beforehand: it is the receiver that is measured.
    let bodies: Vec<(String, String)> = (0..WEBHOOKS).map(|nth| status(&shop, nth)).collect();
    let bodies = Arc::new(bodies);
    let begun = Instant::now();
    let mut posters = tokio::task::JoinSet::new();
    for poster in 0..POSTERS {
        let (bodies, url) = (Arc::clone(&bodies), url.clone());
        let http = client(Timeouts { connect: Duration::from_secs(5), total: Duration::from_secs(30) })?;
        posters.spawn(async move {
            let mut waits = Vec::new();
            for (body, signature) in bodies.iter().skip(poster).step_by(POSTERS) {
                let asked = Instant::now();
                let request = http.post(&url).header("x-hub-signature-256", signature).body(body.clone());
                let status = request.send().await?.status();
                ensure!(status == StatusCode::OK, "a webhook was answered with {status}");
                waits.push(asked.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::with_capacity(WEBHOOKS);
    while let Some(some) = posters.join_next().await {
        waits.extend(some??);
    }
    let took = begun.elapsed().as_secs_f64();
    let kept: i64 = sqlx::query_scalar("select count(*) from muneem.messaging_webhooks").fetch_one(&scratch.db).await?;
    ensure!(usize::try_from(kept)? == WEBHOOKS, "{kept} of {WEBHOOKS} webhooks were kept");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let applied: i64 =
            sqlx::query_scalar("select count(*) from muneem.messaging_events").fetch_one(&scratch.db).await?;
        if usize::try_from(applied)? == WEBHOOKS {
            break;
        }
        ensure!(Instant::now() < deadline, "only {applied} of {WEBHOOKS} webhooks were applied");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let applied = begun.elapsed().as_secs_f64();
    stop.cancel();
    worker.await??;
    tell(&Figure::least("messaging.webhooks_kept", "a second", WEBHOOKS as f64 / took, 3000.0));
    tell(&Figure::at_most("messaging.webhook_p99", "ms", percentile(&mut waits, 0.99), 200.0));
    tell(&Figure::least("messaging.webhooks_applied", "a second", WEBHOOKS as f64 / applied, 1000.0));
    Ok(())
}

/// One status, as the carrier posts it, with its signature.
fn status(shop: &Shop<'_>, nth: usize) -> (String, String) {
    let body = json!({ "object": "whatsapp_business_account", "entry": [{ "id": "102290129340004", "changes": [{
        "field": "messages", "value": {
            "messaging_product": "whatsapp",
            "metadata": { "display_phone_number": "919800000004", "phone_number_id": shop.number.as_str() },
            "contacts": [{ "profile": { "name": "\u{917}\u{94d}\u{930}\u{93e}\u{939}\u{915}" }, "wa_id": "919812345678" }],
            "statuses": [{ "id": format!("wamid.{nth}"), "status": "delivered", "timestamp": "1764000012",
                "recipient_id": "919812345678", "biz_opaque_callback_data": format!("w1.nobody.{nth}.x"),
                "pricing": { "billable": true, "pricing_model": "PMP", "type": "regular", "category": "utility" } }] } }] }] })
    .to_string();
    let secret = &credentials().app_secrets[0];
    let signature = format!("sha256={}", hex::encode(messaging::sign(secret, body.as_bytes())));
    (body, signature)
}
