//! The task that seals the evidence log, beside the scheduler: see [`muneem_jobs::evidence::Sealer`].

pub mod anchors;
pub mod bundle;
pub mod held;

use std::{
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use muneem_jobs::{
    evidence::{self, Sealer, Turn, note::Signer25519},
    outbound::{Chance, Clock},
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use self::anchors::Outside;
use crate::config::Config;

/// Pause between two turns.
const PAUSE: Duration = Duration::from_millis(250);
/// Pause after a turn that failed, or while another process leads.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// The signing key, read from its file.
///
/// # Errors
/// It is not there, cannot be read, is no key, or others may read it.
pub fn read_key(file: &Path) -> anyhow::Result<Signer25519> {
    let shown = file.display();
    let open = std::fs::metadata(file).with_context(|| format!("there is no evidence key at {shown}"))?;
    if open.permissions().mode() & 0o077 != 0 {
        bail!("others may read the evidence key: chmod 600 {shown}");
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("the evidence key {shown} cannot be read"))?;
    let text = zeroize::Zeroizing::new(text);
    let seed = hex::decode(text.trim()).ok().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let Some(seed) = seed else { bail!("{shown} is no evidence key: it holds 64 hexadecimal digits") };
    Ok(Signer25519::new(&zeroize::Zeroizing::new(seed)))
}

/// The signing key; made on the first start of an installation that never signed anything.
async fn find_or_make_key(file: &Path, db: &PgPool, chance: &dyn Chance) -> anyhow::Result<Signer25519> {
    if !file.exists() {
        if !evidence::list_notes(&mut *db.acquire().await?).await?.is_empty() {
            bail!(
                "the evidence key {} is gone, and this log was signed with it: put it back from where you keep it",
                file.display()
            );
        }
        let mut seed = zeroize::Zeroizing::new([0; 32]);
        chance.fill(&mut *seed);
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        match made {
            Ok(mut open) => {
                open.write_all(format!("{}\n", hex::encode(*seed)).as_bytes())
                    .and_then(|()| open.sync_all())
                    .with_context(|| format!("cannot write the evidence key {}", file.display()))?;
            }
            // Another process of this machine was first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make the evidence key {}", file.display()));
            }
        }
    }
    read_key(file)
}

/// Seals until `shutdown`. What goes wrong is said once and tried again; a log that went back in time stays as it is.
///
/// # Errors
/// The key or an anchor cannot be used.
pub async fn run(config: &Config, db: PgPool, outside: Outside, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = &config.evidence;
    let key_file = settings.key_file.clone().unwrap_or_else(|| config.data.dir.join("evidence.key"));
    std::fs::create_dir_all(&config.data.dir)
        .with_context(|| format!("cannot make the data directory {}", config.data.dir.display()))?;
    let anchors = anchors::build(config, &outside)?;
    let Outside { clock, chance, .. } = outside;
    let signer = find_or_make_key(&key_file, &db, &*chance).await?;
    tracing::info!(key = signer.verifier().to_vkey(), "evidence is signed; keep this public key elsewhere");
    let kinds = anchors::outside_kinds(config);
    if kinds.len() < 2 && !config.sandbox.enabled {
        tracing::warn!(
            "heads of the evidence log are kept at {} kinds of places outside: set two of `anchor_dir`, [evidence.objects], \
             [evidence.timestamp] and [evidence.mail]",
            kinds.len()
        );
    }
    let holder = chance.uuid_v7(clock.now()).to_string();
    let mut sealer = Sealer::new(signer, anchors, holder);
    // The schedule does it every night; a process that starts after months has no night to wait for.
    let mut make_months = true;
    let mut told = String::new();
    while !shutdown.is_cancelled() {
        let outcome = turn(&mut sealer, &db, &*clock, make_months).await;
        make_months &= outcome.is_err();
        let pause = match outcome {
            Ok(Turn::Following) => LONG_PAUSE,
            Ok(Turn::Sealed { events, failing, .. }) => {
                metrics::counter!("muneem_evidence_sealed_total").increment(events);
                metrics::gauge!("muneem_evidence_forked").set(0.0);
                measure(&sealer);
                say(&mut told, &failing.join("; "));
                PAUSE
            }
            Err(error) => {
                let forked = matches!(error, evidence::Error::Forked(_));
                metrics::gauge!("muneem_evidence_forked").set(if forked { 1.0 } else { 0.0 });
                say(&mut told, &format!("{:#}", anyhow::Error::from(error)));
                LONG_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(())
}

async fn turn(sealer: &mut Sealer, db: &PgPool, clock: &dyn Clock, make_months: bool) -> Result<Turn, evidence::Error> {
    let mut db = db.acquire().await?;
    if make_months {
        evidence::make_months(&mut db).await?;
    }
    sealer.turn(&mut db, clock.now()).await
}

/// How each anchor stands, as measures.
fn measure(sealer: &Sealer) {
    for state in sealer.anchor_states() {
        let labels = [("anchor", state.name), ("kind", state.kind)];
        metrics::gauge!("muneem_evidence_anchor_failing", &labels).set(if state.failing_since.is_some() {
            1.0
        } else {
            0.0
        });
        #[expect(clippy::cast_precision_loss, reason = "leaves and seconds for a graph")]
        if let (Some(size), Some(at)) = (state.laid_size, state.laid_at) {
            metrics::gauge!("muneem_evidence_anchor_leaves", &labels).set(size as f64);
            metrics::gauge!("muneem_evidence_anchor_laid_seconds", &labels).set(at.timestamp() as f64);
        }
    }
}

/// Says what is wrong when it begins or changes, not four times a second.
fn say(told: &mut String, problem: &str) {
    if told != problem {
        if problem.is_empty() {
            tracing::info!("the evidence log is sealed, and laid down everywhere, again");
        } else {
            tracing::error!("evidence: {problem}");
        }
        problem.clone_into(told);
    }
}

#[cfg(test)]
mod tests;
