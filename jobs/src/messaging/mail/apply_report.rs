use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{
    bounce::Read,
    fold::{Folded, fold},
    receive,
    report_store::{self as store, Settled},
    token::Fit,
};
use crate::{
    messaging::Error,
    queue::{Done, Job, JobContext, Lane},
};

/// `messaging.apply_mail_report`: reads a stored report and folds it into the mail it is about.
///
/// Everything happens in one transaction, and the report says afterwards that it was applied: twice is once.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyMailReport {
    /// The stored report.
    pub report_id: Uuid,
}

impl Job for ApplyMailReport {
    const KIND: &'static str = "messaging.apply_mail_report";
    const LANE: Lane = Lane::Transactional;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut tx = ctx.begin().await?;
        let row = store::lock_report(&mut tx, ctx.business, self.report_id).await?;
        let Some(row) = row.filter(|row| row.is_received) else { return Ok(Done::OK) };
        let sealed = row.body_sealed.ok_or(Error::ReportUnreadable(self.report_id))?;
        let of = (ctx.business, self.report_id);
        let raw = store::open_body(&mut tx, &ctx.deps.vault, of, &sealed).await?;
        let Read::Reports(reports) = receive::read(row.format, &raw) else {
            // An older program found a report in it; kept for a person to look at.
            return Err(Error::ReportUnreadable(self.report_id));
        };
        // Behind the wall a token is found only if it is this business's.
        let matched = receive::match_up(&mut tx, &reports).await?;
        let Some((report, token, known)) = matched else {
            let none = Settled { state: "unmatched", kind: None, status: None, permanent: None, of: None };
            return self.settle(tx, ctx, &none).await;
        };
        let fit = known.fit(&token, &report.recipients);
        // Complaints come with their recipient struck out. A failure that names nobody is noted, and closes no address
        // for good.
        let permanent = report.permanent && fit == Fit::Named;
        let state = if fit == Fit::Others {
            tracing::warn!(messaging.report_id = %self.report_id, "a report names another recipient than the mail had");
            "unfit"
        } else {
            let folded = Folded {
                report_id: self.report_id,
                receipt: hex::encode(Sha256::digest(&raw)),
                of: known.of,
                kind: report.kind,
                status: report.status.clone(),
                fault: report.fault(),
                permanent,
            };
            fold(&mut tx, ctx, &folded).await?;
            "applied"
        };
        let settled = Settled {
            state,
            kind: Some(report.kind),
            status: report.status.as_deref(),
            permanent: Some(permanent),
            of: Some(known.of),
        };
        self.settle(tx, ctx, &settled).await
    }
}

impl ApplyMailReport {
    async fn settle(
        &self,
        mut tx: Transaction<'static, Postgres>,
        ctx: &JobContext,
        settled: &Settled<'_>,
    ) -> Result<Done, Error> {
        store::settle_report(&mut tx, self.report_id, settled, ctx.now()).await?;
        ctx.step("messaging.mail_report_applied").await;
        ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }
}
