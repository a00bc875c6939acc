//! What stands for and against writing to many contacts, in one statement.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    messaging::wishes::{Channel, Error},
    people::BusinessId,
};

/// Addresses that are asked about: each mark with the place of its question, from 0, and whether the message is to go
/// there or the address is merely the same person's; and the purpose of each question.
#[derive(Default)]
pub(in crate::messaging::wishes) struct Asked {
    pub(in crate::messaging::wishes) places: Vec<i64>,
    pub(in crate::messaging::wishes) marks: Vec<Vec<u8>>,
    pub(in crate::messaging::wishes) addressed: Vec<bool>,
    pub(in crate::messaging::wishes) purposes: Vec<String>,
}

/// One thing that stands for or against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(in crate::messaging::wishes) enum What {
    Erased,
    All,
    Marketing,
    Channel,
    Identity,
    Given,
    Withdrawn,
    AskAgain,
}

/// With its question, its channel and whether it is said of who is written to.
pub(in crate::messaging::wishes) struct Found {
    pub(in crate::messaging::wishes) place: i64,
    pub(in crate::messaging::wishes) what: What,
    pub(in crate::messaging::wishes) channel: Option<Channel>,
    pub(in crate::messaging::wishes) addressed: bool,
    pub(in crate::messaging::wishes) at: DateTime<Utc>,
}

pub(in crate::messaging::wishes) async fn list_standing(
    conn: &mut PgConnection,
    business: BusinessId,
    asked: &Asked,
    now: DateTime<Utc>,
) -> Result<Vec<Found>, Error> {
    Ok(sqlx::query_file_as!(
        Found,
        "src/messaging/wishes/sql/standing.sql",
        business.0,
        &asked.places,
        &asked.marks,
        &asked.addressed,
        &asked.purposes,
        now,
    )
    .fetch_all(conn)
    .await?)
}
