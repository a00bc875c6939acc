//! The evidence log against the practical limit: the same rows put into a table that proves nothing, on the same server
//! in the same run, with the sealer at work beside it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    evidence::{self, Actor, Event, EventId, Object, Sealer, note::Signer25519, words},
    outbound::{Chance, Clock},
    people::BusinessId,
};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::{Figure, Scratch, in_turn, median};
use crate::{
    evidence::bundle::{self, Against},
    outbound::{chance::OsChance, clock::SystemClock},
};

const WRITERS: usize = 16;
const ROUNDS: usize = 5;
/// How long writers write in one round.
const WRITE: Duration = Duration::from_secs(3);
/// Events that are sealed, exported and verified.
const VERIFIED: u64 = 1_000_000;
/// Events of one statement.
const BATCH: u64 = 1000;
const SEED: [u8; 32] = [9; 32];
const BUSINESS: BusinessId = BusinessId(Uuid::from_u128(1));
/// Between two turns of the sealer, as `muneem serve` has it.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn measure(scratch: &Scratch, tell: &mut (dyn FnMut(&Figure) + Send)) -> anyhow::Result<()> {
    let db = &scratch.db;
    sqlx::query("create schema muneem_bench").execute(db).await?;
    sqlx::query(
        "create table muneem_bench.events (
            event_id uuid primary key, business_id uuid, at timestamptz not null default now(), body bytea not null)",
    )
    .execute(db)
    .await?;
    let key = Signer25519::new(&SEED);
    let mut sealer = Sealer::new(Signer25519::new(&SEED), Vec::new(), "bench".to_owned());

    let mut conn = db.acquire().await?;
    let mut at = SystemClock.now();
    let (mut ours, mut sealed, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for by_hand in in_turn(round) {
            sqlx::query("checkpoint").execute(db).await?;
            let rate = write(db, by_hand).await?;
            if by_hand { plain.push(rate) } else { ours.push(rate) }
        }
        seal_all(&mut conn, &mut sealer, &mut at).await?;
        sqlx::query("checkpoint").execute(db).await?;
        sealed.push(write_sealed(db, &mut sealer, &mut at).await?);
        seal_all(&mut conn, &mut sealer, &mut at).await?;
    }
    let plain = median(plain);
    tell(&Figure::at_least("evidence.append", "events/s", median(ours), plain, 0.85));
    // What the sealer takes of two cores that the writers fill.
    tell(&Figure::rate_beside("evidence.append_beside_sealer", "events/s", median(sealed), plain, 2500.0));

    let before = evidence::load_standing(&mut conn).await?.size;
    let rate = write_batches(db, VERIFIED.saturating_sub(before)).await?;
    tell(&Figure::least("evidence.append_batch", "events/s", rate, 15_000.0));
    let begun = Instant::now();
    let sealed = seal_all(&mut conn, &mut sealer, &mut at).await?;
    tell(&Figure::least("evidence.seal", "events/s", sealed as f64 / begun.elapsed().as_secs_f64(), 20_000.0));

    let folder = tempfile::tempdir().context("no temporary folder")?;
    let file = folder.path().join("evidence.zip");
    bundle::export(&mut conn, key.verifier(), None, &file, |_, _| {}).await?;
    drop(conn);
    let (events, took) = verify(&file, &key).await?;
    ensure!(events >= VERIFIED, "the bundle holds {events} events, not {VERIFIED}");
    let seconds = took.as_secs_f64() * VERIFIED as f64 / events as f64;
    tell(&Figure::at_most("evidence.verify", "s/1M", seconds, 10.0));
    Ok(())
}

fn event(business_id: Option<BusinessId>) -> Event<'static> {
    Event {
        event_id: EventId::new(&OsChance as &dyn Chance, SystemClock.now()),
        business_id,
        actor: Actor::Job { kind: "messaging.send", job_id: 4711 },
        verb: words::PROBED,
        object: Object { kind: "message", id: "01932c0e-7a10-7000-8000-0123456789ab" },
        details: json!({ "attempt": 1, "told_by": "answer", "held": false }),
    }
}

/// Sixteen connections, a commit an event; events per second. `by_hand`: into the plain table.
async fn write(db: &PgPool, by_hand: bool) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut conn = db.acquire().await?;
                let mut written = 0_u32;
                while begun.elapsed() < WRITE {
                    let event = event(Some(BUSINESS));
                    if by_hand {
                        sqlx::query(
                            "insert into muneem_bench.events (event_id, business_id, body) values ($1, $2, $3)",
                        )
                        .bind(event.event_id)
                        .bind(event.business_id)
                        .bind(event.body()?)
                        .execute(&mut *conn)
                        .await?;
                    } else {
                        evidence::record(&mut conn, &event).await?;
                    }
                    written += 1;
                }
                anyhow::Ok(written)
            })
        })
        .collect();
    let mut written = 0;
    for writer in writers {
        written += writer.await??;
    }
    Ok(f64::from(written) / begun.elapsed().as_secs_f64())
}

/// As [`write`], with the sealer numbering and signing meanwhile as it does beside a shop.
async fn write_sealed(db: &PgPool, sealer: &mut Sealer, at: &mut DateTime<Utc>) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicBool::new(false));
    let mut conn = db.acquire().await?;
    let sealing = async {
        while !done.load(Ordering::Relaxed) {
            sealer.turn(&mut conn, *at).await?;
            tokio::time::sleep(PAUSE).await;
            *at += PAUSE;
        }
        anyhow::Ok(())
    };
    let writing = async {
        let rate = write(db, false).await;
        done.store(true, Ordering::Relaxed);
        rate
    };
    let (sealed, rate) = tokio::join!(sealing, writing);
    sealed?;
    rate
}

/// Four connections, a thousand events a statement, half of them of a business; events per second.
async fn write_batches(db: &PgPool, events: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let batches = events.div_ceil(BATCH);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut conn = db.acquire().await?;
                for _ in (writer..batches).step_by(4) {
                    let batch: Vec<_> = (0..BATCH).map(|number| event((number % 2 == 0).then_some(BUSINESS))).collect();
                    let mut tx = conn.begin().await?;
                    evidence::record_many(&mut tx, &batch).await?;
                    tx.commit().await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok((batches * BATCH) as f64 / begun.elapsed().as_secs_f64())
}

/// Until nothing waits and a head stands over all; how many were sealed. Each turn is two hours after the one before, so
/// that a head is due.
async fn seal_all(conn: &mut PgConnection, sealer: &mut Sealer, at: &mut DateTime<Utc>) -> anyhow::Result<u64> {
    let before = evidence::load_standing(conn).await?.size;
    loop {
        *at += TimeDelta::hours(2);
        sealer.turn(conn, *at).await?;
        let standing = evidence::load_standing(conn).await?;
        if standing.unsealed_since.is_none() {
            return Ok(standing.size - before);
        }
    }
}

/// With nothing but the file and the key, on one thread.
async fn verify(file: &Path, key: &Signer25519) -> anyhow::Result<(u64, Duration)> {
    let (file, key) = (file.to_owned(), key.verifier().clone());
    let verified = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let verdict = bundle::verify(&file, Against { key: Some(&key), ..Against::default() })?;
        anyhow::Ok((verdict.verified, begun.elapsed()))
    });
    verified.await?
}
