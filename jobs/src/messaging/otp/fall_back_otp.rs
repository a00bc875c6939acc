use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Error, OtpId,
    send_otp::{OTP_SETTINGS, send_from},
    store::{self, CodeState},
};
use crate::{
    messaging::{self, MessageId, State},
    people::BusinessId,
    queue::{self, Done, Job, JobContext, Lane, NewJob, Settings},
};

/// `messaging.fall_back_otp`: looks whether a code has left for its phone; where there is no sign of it, a fresh one goes
/// by the next way.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallBackOtp {
    /// The request.
    pub otp_id: OtpId,
    /// Which of its ways was taken, from 0.
    pub hop: i16,
}

impl Job for FallBackOtp {
    const KIND: &'static str = "messaging.fall_back_otp";
    const LANE: Lane = Lane::Otp;
    const SETTINGS: Settings = OTP_SETTINGS;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut tx = ctx.begin().await?;
        // Held first, as everybody holds it who writes of its codes.
        store::lock_otp(&mut tx, ctx.business, self.otp_id).await?;
        let codes = store::list_codes(&mut tx, self.otp_id).await?;
        let code = codes.iter().find(|code| code.hop == self.hop);
        let state = match code.and_then(|code| code.message_id) {
            Some(message) => messaging::store::find_message(&mut tx, Some(ctx.business), message).await?,
            None => None,
        };
        match state.map(|message| message.state) {
            Some(State::Sent | State::Delivered | State::Read) => {
                store::forget_address(&mut tx, self.otp_id).await?;
                ctx.complete(&mut tx, None).await?;
                tx.commit().await?;
                return Ok(Done::Acked);
            }
            Some(State::Failed) => {
                let failed = (CodeState::Failed, Some("not_delivered"), true);
                store::set_code_state(&mut tx, (self.otp_id, self.hop), failed, ctx.now()).await?;
            }
            // Perhaps on its way: it stays good.
            _ => {}
        }
        tx.commit().await?;
        ctx.step("messaging.otp_falls_back").await;
        send_from(ctx, self.otp_id, self.hop.saturating_add(1)).await
    }
}

/// A message failed for good: where it carried a code, the next way is taken now and not when its time is over. Call it in
/// the transaction that says so; messages without a code are no effect.
///
/// # Errors
/// The database fails.
pub async fn message_failed(tx: &mut PgConnection, business: BusinessId, message: MessageId) -> Result<(), Error> {
    if let Some((otp_id, hop)) = store::find_by_message(tx, business, message).await? {
        queue::enqueue(tx, &NewJob::of(business, &FallBackOtp { otp_id, hop })?).await?;
    }
    Ok(())
}
