use serde_json::Value;
use sqlx::PgConnection;

use super::{Error, MessageId};
use crate::{
    evidence::{Act, By, Object, Word},
    people::BusinessId,
    queue::JobContext,
};

/// What becomes of messages in one transaction of a job, for the evidence. Noted as it happens and written with one
/// statement at the end: a webhook of a thousand statuses costs one insert.
pub(super) struct Trail<'a> {
    by: By<'a>,
    business: BusinessId,
    noted: Vec<(Word, MessageId, Value)>,
}

impl<'a> Trail<'a> {
    /// Of a job of this kind.
    pub(super) fn of(ctx: &'a JobContext, kind: &'static str) -> Self {
        Self { by: ctx.by(kind), business: ctx.business, noted: Vec::new() }
    }

    /// Something became of `message`.
    pub(super) fn note(&mut self, word: Word, message: MessageId, details: Value) {
        self.noted.push((word, message, details));
    }

    /// Writes what was noted. Call it just before the commit, and let its error end the transaction.
    pub(super) async fn write(self, tx: &mut PgConnection) -> Result<(), Error> {
        let ids: Vec<String> = self.noted.iter().map(|(_, message, _)| message.to_string()).collect();
        let acts = self.noted.into_iter().zip(&ids).map(|((word, _, details), id)| Act {
            word,
            business: Some(self.business),
            object: Object { kind: "message", id },
            details,
        });
        Ok(self.by.record_all(tx, acts.collect()).await?)
    }
}
