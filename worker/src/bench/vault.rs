//! The vault against its own cipher without a vault around it, and sealing anew against a plain update of the same rows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aes_gcm::{
    Aes256Gcm, Nonce, Tag,
    aead::{AeadInOut, KeyInit},
};
use anyhow::Context;
use muneem_jobs::{
    evidence::Actor,
    outbound::{Chance, Clock},
    people::BusinessId,
    queue::{self, Kind, Lane, NewJob},
    vault::{Cell, Class, Reseal, RotateKeys, Vault},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Figure, Scratch, median, queue::begin};
use crate::outbound::{chance::OsChance, clock::SystemClock};

const ROUNDS: usize = 5;
/// Most fields of one round.
const FIELDS_MAX: usize = 400_000;
/// A phone number, as most fields are.
const PLAIN: &[u8] = b"+919876543210";
const BATCH: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(480);

const BUSINESS: BusinessId = BusinessId(Uuid::from_u128(1));
const TABLE: &str = "muneem.invoice_refusals";
const COLUMN: &str = "payload_sealed";

fn cell(row: &str) -> Cell<'_> {
    Cell { business_id: BUSINESS, table: TABLE, column: COLUMN, row }
}

pub(super) async fn measure(
    scratch: &Scratch,
    rows: usize,
    tell: &mut (dyn FnMut(&Figure) + Send),
) -> anyhow::Result<()> {
    let db = &scratch.db;
    sqlx::query(
        "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
        values ($1, 'bench', 'Bench', now())",
    )
    .bind(BUSINESS.0)
    .execute(db)
    .await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let own = PgPoolOptions::new().max_connections(2).connect_lazy_with(scratch.options.clone());
    let vault = Arc::new(Vault::with_root(&own, &[7; 32].into(), clock, Arc::new(OsChance)));
    fields(db, &vault, rows.min(FIELDS_MAX), tell).await?;
    reseal(scratch, &vault, rows, tell).await
}

/// Seals and opens on one thread, in turn with the cipher alone.
async fn fields(
    db: &PgPool,
    vault: &Vault,
    count: usize,
    tell: &mut (dyn FnMut(&Figure) + Send),
) -> anyhow::Result<()> {
    let rate = |begun: Instant| count as f64 / begun.elapsed().as_secs_f64();
    let rows: Vec<String> = (0..count).map(|row| Uuid::from_u128(row as u128).to_string()).collect();
    let mut conn = db.acquire().await?;
    vault.seal(&mut conn, Class::Contact, &cell(&rows[0]), PLAIN).await?;
    let (mut seals, mut opens, mut bare_seals, mut bare_opens) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (sealing, opening) = bare(count)?;
        bare_seals.push(sealing);
        bare_opens.push(opening);
        let mut sealed = Vec::with_capacity(count);
        let begun = Instant::now();
        for row in &rows {
            sealed.push(vault.seal(&mut conn, Class::Contact, &cell(row), PLAIN).await?);
        }
        seals.push(rate(begun));
        let begun = Instant::now();
        for (row, sealed) in rows.iter().zip(&sealed) {
            std::hint::black_box(vault.open(&mut conn, &cell(row), sealed).await?);
        }
        opens.push(rate(begun));
    }
    tell(&Figure::rate_beside("vault.seal", "fields/s", median(seals), median(bare_seals), 1_000_000.0));
    tell(&Figure::rate_beside("vault.open", "fields/s", median(opens), median(bare_opens), 1_000_000.0));
    Ok(())
}

/// AES-256-GCM alone: a key schedule made once, a nonce by chance, 87 bytes of additional data, a buffer each.
fn bare(count: usize) -> anyhow::Result<(f64, f64)> {
    let rate = |begun: Instant| count as f64 / begun.elapsed().as_secs_f64();
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let additional = [0x5a; 87];
    let mut sealed = Vec::with_capacity(count);
    let begun = Instant::now();
    for _ in 0..count {
        let mut nonce = [0; 12];
        OsChance.fill(&mut nonce);
        let mut text = PLAIN.to_vec();
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &additional, text.as_mut_slice().into())
            .ok()
            .context("the cipher refused")?;
        sealed.push((nonce, text, <[u8; 16]>::from(tag)));
    }
    let sealing = rate(begun);
    let begun = Instant::now();
    for (nonce, text, tag) in &sealed {
        let mut text = text.clone();
        cipher
            .decrypt_inout_detached(&Nonce::from(*nonce), &additional, text.as_mut_slice().into(), &Tag::from(*tag))
            .ok()
            .context("the cipher did not open")?;
        std::hint::black_box(text);
    }
    Ok((sealing, rate(begun)))
}

/// A million values sealed anew by a worker, with readers and writers at them all the while.
async fn reseal(
    scratch: &Scratch,
    vault: &Arc<Vault>,
    rows: usize,
    tell: &mut (dyn FnMut(&Figure) + Send),
) -> anyhow::Result<()> {
    let db = &scratch.db;
    let ids = fill(db, vault, rows).await?;
    let plain = {
        let traffic = Traffic::begin(db, vault, &ids);
        let begun = Instant::now();
        update_plainly(db, &ids).await?;
        let took = begun.elapsed().as_secs_f64();
        traffic.end().await?;
        took
    };
    queue::sync_kinds(&mut *db.acquire().await?, &[Kind::of::<Reseal>(), Kind::of::<RotateKeys>()]).await?;
    let new = i64::from(vault.rotate(BUSINESS, Class::Payload, &Actor::System).await?);
    // Who seals has heard of the new key by now.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let traffic = Traffic::begin(db, vault, &ids);
    let job = NewJob::of(BUSINESS, &RotateKeys {})?;
    queue::enqueue(&mut *db.acquire().await?, &job).await?;
    let begun = Instant::now();
    let stop = CancellationToken::new();
    let kinds = vec![Kind::of::<Reseal>(), Kind::of::<RotateKeys>()];
    let working = begin(scratch, Arc::clone(vault), (vec![Lane::Maintenance], kinds), stop.clone());
    loop {
        let cleared: bool = sqlx::query_scalar(
            "select exists (select from muneem.vault_keys where class = 'payload' and key_id <> $1 and cleared_at is not null)",
        )
        .bind(new)
        .fetch_one(db)
        .await?;
        if cleared {
            break;
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "sealing anew did not end: see vault_reseals");
        anyhow::ensure!(!working.is_finished(), "the worker ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let (reads, failed) = traffic.end().await?;
    stop.cancel();
    working.await??;
    anyhow::ensure!(reads > 0, "nobody read meanwhile");
    let mut figure = Figure::at_most("vault.reseal", "s", took * 1_000_000.0 / rows as f64, 300.0);
    figure.baseline = Some(plain * 1_000_000.0 / rows as f64);
    figure.ratio = Some(took / plain);
    tell(&figure);
    tell(&Figure::at_most("vault.reseal_failed_reads", "reads", failed as f64, 0.0));
    Ok(())
}

/// Rows of a table of ours with one sealed value each.
async fn fill(db: &PgPool, vault: &Vault, rows: usize) -> anyhow::Result<Vec<Uuid>> {
    let clock = SystemClock;
    let chance: &dyn Chance = &OsChance;
    let mut ids = Vec::with_capacity(rows);
    let mut conn = db.acquire().await?;
    while ids.len() < rows {
        let mut batch = Vec::with_capacity(BATCH);
        let mut sealed = Vec::with_capacity(BATCH);
        for _ in 0..BATCH.min(rows - ids.len()) {
            let id = chance.uuid_v7(clock.now());
            sealed.push(vault.seal(&mut conn, Class::Payload, &cell(&id.to_string()), PLAIN).await?);
            batch.push(id);
        }
        sqlx::query(
            "insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, problems, refused_at)
            select n.id, $3, n.sealed, '[]', now()
            from unnest($1::uuid[], $2::bytea[]) n (id, sealed)",
        )
        .bind(&batch)
        .bind(&sealed)
        .bind(BUSINESS.0)
        .execute(db)
        .await?;
        ids.extend(batch);
    }
    sqlx::query("vacuum (analyze) muneem.invoice_refusals").execute(db).await?;
    Ok(ids)
}

/// What a careful engineer writes to change a column of a million rows beside others: batches by key, no vault.
async fn update_plainly(db: &PgPool, ids: &[Uuid]) -> anyhow::Result<()> {
    for batch in ids.chunks(BATCH) {
        let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
            "select refusal_id, payload_sealed
            from muneem.invoice_refusals
            where refusal_id between $1 and $2
            order by refusal_id",
        )
        .bind(batch.iter().min())
        .bind(batch.iter().max())
        .fetch_all(db)
        .await?;
        let (keys, values): (Vec<Uuid>, Vec<Vec<u8>>) = rows.into_iter().unzip();
        sqlx::query(
            "update muneem.invoice_refusals r
            set payload_sealed = n.value
            from unnest($1::uuid[], $2::bytea[]) n (id, value)
            where r.refusal_id = n.id and r.payload_sealed = n.value",
        )
        .bind(&keys)
        .bind(&values)
        .execute(db)
        .await?;
    }
    sqlx::query("vacuum (analyze) muneem.invoice_refusals").execute(db).await?;
    Ok(())
}

/// Somebody who reads and somebody who writes, all the time.
struct Traffic {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Traffic {
    fn begin(db: &PgPool, vault: &Arc<Vault>, ids: &[Uuid]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (failed, reads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let chosen: Arc<[Uuid]> = ids.iter().step_by(97).copied().collect();
        let tasks = [false, true]
            .into_iter()
            .map(|writes| {
                let (db, vault, chosen) = (db.clone(), Arc::clone(vault), Arc::clone(&chosen));
                let (stop, failed, reads) = (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(&reads));
                tokio::spawn(async move {
                    for id in chosen.iter().cycle() {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        if writes {
                            write(&db, &vault, *id).await?;
                        } else {
                            reads.fetch_add(1, Ordering::Relaxed);
                            if !read(&db, &vault, *id).await? {
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        // About a thousand reads and two hundred writes a second.
                        tokio::time::sleep(Duration::from_millis(if writes { 5 } else { 1 })).await;
                    }
                    Ok(())
                })
            })
            .collect();
        Self { stop, failed, reads, tasks }
    }

    /// How many reads there were, and how many of them failed.
    async fn end(self) -> anyhow::Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok((self.reads.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed)))
    }
}

async fn read(db: &PgPool, vault: &Vault, id: Uuid) -> anyhow::Result<bool> {
    let mut conn = db.acquire().await?;
    let sealed: Vec<u8> =
        sqlx::query_scalar("select payload_sealed from muneem.invoice_refusals where refusal_id = $1")
            .bind(id)
            .fetch_one(&mut *conn)
            .await?;
    let row = id.to_string();
    let opened = vault.open(&mut conn, &cell(&row), &sealed).await;
    Ok(opened.is_ok_and(|plain| plain.as_slice() == PLAIN))
}

async fn write(db: &PgPool, vault: &Vault, id: Uuid) -> anyhow::Result<()> {
    let mut conn = db.acquire().await?;
    let row = id.to_string();
    let sealed = vault.seal(&mut conn, Class::Payload, &cell(&row), PLAIN).await?;
    sqlx::query("update muneem.invoice_refusals set payload_sealed = $2 where refusal_id = $1")
        .bind(id)
        .bind(sealed)
        .execute(&mut *conn)
        .await?;
    Ok(())
}
