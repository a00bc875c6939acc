//! Heads of the evidence log by mail, to people who keep them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use muneem_jobs::outbound::{Anchor, AnchorError, AnchorKind, Chance, Clock, Email, Mail, MailOutcome, Mailer};

/// Each head that is due goes to every address, once where the mail server answers for it.
pub struct MailAnchor {
    to: Vec<Email>,
    every: Duration,
    mailer: Arc<dyn Mailer>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    /// Who got the note that is under way, with the Message-ID: an attempt for the others does not send to these again.
    sent: Mutex<(String, Vec<(usize, String)>)>,
}

impl MailAnchor {
    /// Mails to these addresses.
    pub fn new(
        to: Vec<Email>,
        every: Duration,
        mailer: Arc<dyn Mailer>,
        (clock, chance): (Arc<dyn Clock>, Arc<dyn Chance>),
    ) -> Self {
        Self { to, every, mailer, clock, chance, sent: Mutex::default() }
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, (String, Vec<(usize, String)>)> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mail's words around the note, which stands in it as it was signed.
fn words(size: u64, note: &str) -> (String, String) {
    let log = note.lines().next().unwrap_or_default();
    let subject = format!("{log}: {size} events");
    let text = format!(
        "This is the signed head of an evidence log. Please keep this mail as it is, where whoever administers the log\n\
         cannot reach it. Nothing else is asked of you.\n\
         \n\
         Between the lines stands the head: the log's name, its number of events, the root of the tree over them, the\n\
         time, and the signature (C2SP tlog-checkpoint). From it anybody can tell, without the people who run the log,\n\
         whether one of these events was changed, left out or slipped in since. To check a bundle of evidence with it,\n\
         save this mail, or the lines alone, as a file, and run:\n\
         \n\
         muneem evidence verify evidence.zip --head this-mail.eml\n\
         \n\
         -----------------------------------------------------------------\n\
         {note}\
         -----------------------------------------------------------------\n"
    );
    (subject, text)
}

#[async_trait]
impl Anchor for MailAnchor {
    fn name(&self) -> &str {
        "mail"
    }

    fn kind(&self) -> AnchorKind {
        AnchorKind::Mail
    }

    fn every(&self) -> Duration {
        self.every
    }

    fn remembers(&self) -> bool {
        false
    }

    fn is_outside(&self) -> bool {
        true
    }

    async fn lay(&self, size: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        let (subject, text) = words(size, note);
        {
            let mut sent = self.sent();
            if sent.0 != note {
                *sent = (note.to_owned(), Vec::new());
            }
        }
        let served: BTreeSet<usize> = self.sent().1.iter().map(|(place, _)| *place).collect();
        let mut failures = Vec::new();
        for (place, to) in self.to.iter().enumerate().filter(|(place, _)| !served.contains(place)) {
            let id = self.chance.uuid_v7(self.clock.now());
            let mail = Mail::new(id, to.clone(), &subject, &text)
                .map_err(|error| AnchorError::because("the checkpoint cannot be written as a mail", error))?;
            match self.mailer.send(&mail).await {
                MailOutcome::Accepted => self.sent().1.push((place, id.to_string())),
                MailOutcome::Refused(failure) | MailOutcome::NotSent(failure) => failures.push(failure.to_string()),
                // Twice is better than not at all.
                MailOutcome::Unknown(failure) => failures.push(format!("in doubt: {failure}")),
            }
        }
        if failures.is_empty() {
            let ids: Vec<_> = self.sent().1.iter().map(|(_, id)| id.clone()).collect();
            return Ok(ids.join("\n").into_bytes());
        }
        let (count, all) = (failures.len(), self.to.len());
        failures.dedup();
        Err(AnchorError::new(format!("{count} of {all} mails did not go out ({})", failures.join("; "))))
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        Ok(None)
    }
}
