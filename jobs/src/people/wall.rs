//! The second wall: a transaction that is narrowed to one business, and the few steps out of it.

use sqlx::PgConnection;

use super::{BusinessId, Error, store};

/// Leaves the wall, for what no request of one business may touch but the program does for it: ending what somebody
/// signs in with. Answers what to hand to [`step_in`].
pub(super) async fn step_out(tx: &mut PgConnection) -> Result<Option<BusinessId>, Error> {
    let inside = store::business_at_hand(tx).await?;
    if inside.is_some() {
        store::leave_business(tx).await?;
    }
    Ok(inside)
}

/// Goes back to where [`step_out`] came from.
pub(super) async fn step_in(tx: &mut PgConnection, inside: Option<BusinessId>) -> Result<(), Error> {
    match inside {
        Some(business) => store::enter_business(tx, business).await,
        None => Ok(()),
    }
}
