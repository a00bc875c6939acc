//! A proof that waits while whoever gave it says who she is, or where she goes.

use chrono::{DateTime, SubsecRound, Utc};
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CODE_LIFE, CODE_TRIES, Channel, CodeId, Error, SentCode, code_store, new_token, secret};
use crate::outbound::Chance;

/// What a right code proved, and how much longer that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// To whom the code was sent.
    pub staff: Uuid,
    /// The way it was sent.
    pub channel: Channel,
    /// The people of staff to whom it may lead.
    pub leads_to: Vec<Uuid>,
    /// Answers that it still bears.
    pub tries_left: i16,
    /// Its last instant, however often it is parked.
    pub expires_at: DateTime<Utc>,
}

impl Parked {
    /// What a code that was right at `now` proved; it leads nowhere yet.
    pub fn at(staff: Uuid, channel: Channel, now: DateTime<Utc>) -> Self {
        let expires_at = now.trunc_subsecs(6) + CODE_LIFE;
        Self { staff, channel, leads_to: Vec::new(), tries_left: CODE_TRIES, expires_at }
    }
}

/// Keeps a proof as a code that is sent to nobody: bound to the browser as a sent one is, works once, and is none of the
/// codes that somebody may be sent in an hour.
///
/// # Errors
/// The database fails.
pub async fn park_proof(
    db: &mut PgConnection,
    proof: &Parked,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<SentCode, Error> {
    let now = now.trunc_subsecs(6);
    let code = SentCode {
        code_id: CodeId(chance.uuid_v7(now)),
        binding: new_token(chance),
        code: secret::new_code(chance),
        expires_at: proof.expires_at,
    };
    let digest = secret::code_digest(code.binding.expose_secret(), code.code.expose_secret());
    code_store::insert_code(db, &code, proof.staff, &code_store::Opens::Proof(proof), &digest, now).await?;
    Ok(code)
}
