//! The anchors that the settings name.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use chrono::TimeDelta;
use muneem_jobs::{
    evidence::timestamp::Roots,
    outbound::{Anchor, AnchorKind, Chance, Clock, Mailer},
};

use crate::{
    config::Config,
    outbound::{
        anchor::DirectoryAnchor,
        anchor_mail::MailAnchor,
        anchor_objects::{self, ObjectsAnchor},
        anchor_timestamp::TimestampAnchor,
        http::{Timeouts, client},
    },
};

/// What anchors are made with.
pub struct Outside {
    /// Carries mail.
    pub mailer: Arc<dyn Mailer>,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Nonces and ids.
    pub chance: Arc<dyn Chance>,
}

/// Kinds of places outside that the settings name, each once: two are wanted.
pub fn outside_kinds(config: &Config) -> Vec<AnchorKind> {
    let settings = &config.evidence;
    let named = [
        (AnchorKind::Directory, directory_is_outside(config)),
        (AnchorKind::Objects, settings.objects.bucket.is_some()),
        (AnchorKind::Timestamp, !settings.timestamp.urls.is_empty()),
        (AnchorKind::Mail, !settings.mail.to.is_empty()),
    ];
    named.into_iter().filter(|(_, is_set)| *is_set).map(|(kind, _)| kind).collect()
}

/// A directory that somebody chose, and not one beside the database.
fn directory_is_outside(config: &Config) -> bool {
    config.evidence.anchor_dir.as_ref().is_some_and(|dir| !dir.starts_with(&config.data.dir))
}

/// Root certificates from a file.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn read_roots(file: &Path) -> anyhow::Result<Roots> {
    let shown = file.display();
    let pem = std::fs::read(file).with_context(|| format!("cannot read the root certificates {shown}"))?;
    Roots::from_pem(&pem).with_context(|| shown.to_string())
}

/// Every anchor that the settings name, ready to be asked.
///
/// # Errors
/// A directory or a file cannot be used; each says which setting names it.
pub fn build(config: &Config, outside: &Outside) -> anyhow::Result<Vec<Arc<dyn Anchor>>> {
    let settings = &config.evidence;
    let dir = settings.anchor_dir.clone().unwrap_or_else(|| config.data.dir.join("anchors"));
    let directory = DirectoryAnchor::open(&dir, settings.anchor_every, directory_is_outside(config))
        .with_context(|| format!("cannot use {} for anchors; set `evidence.anchor_dir`", dir.display()))?;
    let mut anchors: Vec<Arc<dyn Anchor>> = vec![Arc::new(directory)];

    let objects = &settings.objects;
    if let (Some(bucket), Some(secret)) = (&objects.bucket, &objects.secret_access_key) {
        let settings = anchor_objects::Settings {
            endpoint: objects.endpoint.clone(),
            region: objects.region.clone(),
            bucket: bucket.clone(),
            prefix: objects.prefix.clone(),
            access_key_id: objects.access_key_id.clone(),
            secret_access_key: secret.clone(),
            lock: objects.lock,
            retain: TimeDelta::days(objects.retain_days.into()),
            every: objects.every,
            timeouts: Timeouts { total: objects.timeout, ..Timeouts::DEFAULT },
        };
        anchors.push(Arc::new(ObjectsAnchor::new(settings, Arc::clone(&outside.clock))?));
    }

    let timestamp = &settings.timestamp;
    if let Some(file) = timestamp.roots_file.as_ref().filter(|_| !timestamp.urls.is_empty()) {
        let roots = read_roots(file).context("`evidence.timestamp.roots_file` cannot be used")?;
        let http = client(Timeouts { total: timestamp.timeout, ..Timeouts::DEFAULT })?;
        for (number, url) in (1..).zip(&timestamp.urls) {
            let name = if number == 1 { "timestamp".to_owned() } else { format!("timestamp_{number}") };
            let with = (http.clone(), Arc::clone(&outside.chance));
            anchors.push(Arc::new(TimestampAnchor::new(name, url.clone(), roots.clone(), timestamp.every, with)));
        }
    }

    if !settings.mail.to.is_empty() {
        let with = (Arc::clone(&outside.clock), Arc::clone(&outside.chance));
        let mailer = Arc::clone(&outside.mailer);
        anchors.push(Arc::new(MailAnchor::new(settings.mail.to.clone(), settings.mail.every, mailer, with)));
    }
    Ok(anchors)
}
