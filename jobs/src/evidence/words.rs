//! The words of the acts that are recorded by [`super::By`], one list: `<duty>.<thing>_<done>`. A [`Word`] is made here
//! alone, and each names the test that causes it. Staff, sign-in, keys and the log's own reading still say theirs where
//! they do it.

/// What an event says was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    text: &'static str,
    test: &'static str,
}

impl Word {
    /// `people.token_made`
    pub const fn as_str(self) -> &'static str {
        self.text
    }

    /// The test that does what the word says and finds the event.
    pub const fn test(self) -> &'static str {
        self.test
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

macro_rules! words {
    ($($test:ident { $($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+ })+) => {
        $($(
            $(#[doc = $doc])+
            pub const $name: Word = Word { text: $text, test: stringify!($test) };
        )+)+

        /// All of them.
        pub const ALL: &[Word] = &[$($($name,)+)+];
    };
}

words! {
    atk_085_what_cannot_be_recorded_is_not_done {
        /// A document was checked and has its number here.
        INVOICE_REGISTERED = "invoice.document_registered",
        /// Its PDF was made and is the one that counts.
        INVOICE_ISSUED = "invoice.document_issued",
        /// A document was refused.
        INVOICE_REFUSED = "invoice.document_refused",
        /// A business has, or changed, the number it sends from.
        ACCOUNT_SET = "messaging.account_set",
        /// An attempt is about to be posted.
        MESSAGE_ATTEMPTED = "messaging.message_attempted",
        /// The carrier has it.
        MESSAGE_SENT = "messaging.message_sent",
        /// An attempt came to nothing; another follows, or a failure.
        ATTEMPT_FAILED = "messaging.attempt_failed",
        /// Nobody can tell what became of an attempt.
        OUTCOME_UNKNOWN = "messaging.outcome_unknown",
        /// What became of it was settled: by silence, or because it was given up.
        OUTCOME_RECONCILED = "messaging.outcome_reconciled",
        /// It reached the phone, or was read.
        MESSAGE_DELIVERED = "messaging.message_delivered",
        /// It will not be delivered.
        MESSAGE_FAILED = "messaging.message_failed",
        /// A webhook whose signature held was kept.
        WEBHOOK_KEPT = "messaging.webhook_kept",
        /// Somebody put a dead job back in line.
        JOB_RETRIED = "queue.job_retried",
        /// Somebody took a job out, or asked its worker to stop.
        JOB_CANCELLED = "queue.job_cancelled",
        /// Somebody added or changed a schedule.
        SCHEDULE_PUT = "schedule.entry_put",
        /// Somebody removed a schedule.
        SCHEDULE_REMOVED = "schedule.entry_removed",
        /// Somebody let a schedule rest.
        SCHEDULE_PAUSED = "schedule.entry_paused",
        /// Somebody let a schedule run again.
        SCHEDULE_RESUMED = "schedule.entry_resumed",
        /// Somebody had a schedule's job made out of turn.
        SCHEDULE_TRIGGERED = "schedule.entry_triggered",
        /// The schema is at another version.
        SCHEMA_MIGRATED = "schema.version_reached",
        /// Other data of the law is in force: its digest.
        LAW_CHANGED = "law.data_changed",
        /// A process began to serve: its version and parts.
        SERVE_STARTED = "serve.process_started",
        /// Written to try or to measure the log itself.
        PROBED = "evidence.log_probed",
    }
    businesses_and_tokens_are_on_record_or_are_not_made {
        /// A business came here.
        BUSINESS_ADDED = "people.business_added",
        /// A token was made: what it may, for whom, until when.
        TOKEN_MADE = "people.token_made",
        /// A token was ended.
        TOKEN_REVOKED = "people.token_revoked",
        /// A token stood in a URL, where logs keep it.
        TOKEN_EXPOSED = "people.token_exposed",
    }
    atk_061_who_is_refused_is_counted_and_on_record_once_a_minute {
        /// Somebody who is known was refused something, so often since the last such event.
        REQUEST_REFUSED = "people.request_refused",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::ALL;

    #[test]
    fn each_word_is_there_once_and_well_formed() {
        let mut seen = BTreeSet::new();
        for word in ALL {
            let text = word.as_str();
            assert!(seen.insert(text), "{text} twice");
            let (duty, done) = text.split_once('.').expect("a duty and what was done");
            let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(plain(duty) && plain(done) && text.len() <= 64, "{text}: <duty>.<thing>_<done>");
        }
    }

    /// That the test finds the event is its own to say; here, that there is one.
    #[test]
    fn each_word_has_a_test_that_causes_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut sources = String::new();
        for folder in ["jobs/src", "worker/src", "worker/tests", "tests/it"] {
            collect(&root.join(folder), &mut sources);
        }
        for word in ALL {
            let test = format!("async fn {}(", word.test());
            assert!(sources.contains(&test), "{word}: there is no test {}", word.test());
        }
    }

    fn collect(folder: &Path, sources: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                collect(&entry, sources);
            } else if entry.extension().is_some_and(|kind| kind == "rs") {
                sources.push_str(&fs::read_to_string(&entry).expect("a source"));
            }
        }
    }
}
