//! Campaigns: the same thing said to many, as fast as the carrier's limits allow, stopped in an instant.
//!
//! A campaign is filled with people as a draft ([`add_people`], [`load_list`]), looked at before it costs anything
//! ([`estimate`], [`preview`], [`send_test`]), started, and sent by a few streams
//! (`messaging.send_wave`) that take messages in small waves: a place in the number's rate, a committed attempt, a POST,
//! what came of it, the ledger being the same as for every other message. No message has a job of its own, so a million
//! cost the queue nothing, and stopping is one row that each wave reads before it begins and again before it posts: within
//! two seconds of the answer to a stop no POST of the campaign begins any more.

mod estimate;
mod list;
mod people;
mod preview;
mod rates;
mod store;
mod wave;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{Content, Error, Header, Language, MessageClass, store::find_number, template::library};
use crate::{
    evidence::{Act, By, Object, Word, words},
    outbound::{Chance, Email, Phone},
    people::BusinessId,
    queue::{self, NewJob},
};

pub use estimate::{Cost, CostLine, Estimate, Time, estimate};
pub use list::{BadRow, Loaded, check_list, load_list};
pub use people::{Added, BadField, add_people, read_language, read_person};
pub use preview::{Preview, PreviewButton, TEST_PURPOSE, Test, Whose, preview, send_test};
pub use wave::{ReconcileWaves, SendWave};
pub(super) use wave::{come_again, count_moves, wake};

crate::id_type! {
    /// One campaign.
    CampaignId
}

/// Streams that send a campaign side by side.
const STREAMS: u8 = 4;
/// People added with one call.
pub const PEOPLE_AT_ONCE: usize = 1000;

/// Where a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type, Serialize)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum CampaignState {
    /// People are added.
    Draft,
    /// Messages go out.
    Running,
    /// None goes out until somebody lets it go on.
    Paused,
    /// None goes out any more.
    Stopped,
    /// All went out, or could not.
    Done,
}

impl CampaignState {
    /// Whether messages of it may go: one that is done may have some to try again, or by another way.
    pub const fn goes_out(self) -> bool {
        matches!(self, Self::Running | Self::Done)
    }
}

/// What to say to many.
#[derive(Clone, Debug)]
pub struct NewCampaign {
    /// Whose.
    pub business: BusinessId,
    /// For people of the business alone.
    pub name: String,
    /// The word under which consent is kept: `marketing.offers`.
    pub purpose: String,
    /// What kind of thing it is.
    pub class: MessageClass,
    /// Folder of its words.
    pub template: String,
    /// After so many messages it rests until somebody lets it go on.
    pub rests_after: Option<i64>,
    /// After this instant nothing more begins.
    pub expires_at: DateTime<Utc>,
}

/// One person of a campaign.
#[derive(Clone)]
pub struct NewPerson {
    /// Where she is written to.
    pub to: Phone,
    /// Where she is written to if WhatsApp does not reach her.
    pub mail: Option<Email>,
    /// What is said, in the campaign's template.
    pub content: Content,
    /// Her language.
    pub language: Language,
}

/// A campaign as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct Campaign {
    /// Its id.
    pub campaign_id: CampaignId,
    /// Whose.
    pub business_id: BusinessId,
    /// For people of the business alone.
    pub name: String,
    /// The word under which consent is kept.
    pub purpose: String,
    /// What kind of thing it is.
    pub class: MessageClass,
    /// The number it comes from.
    pub phone_number_id: String,
    /// Folder of its words.
    pub template: String,
    /// Where it stands.
    pub state: CampaignState,
    /// Why it rests by itself: `wave`.
    pub paused_because: Option<String>,
    /// After so many messages it rests.
    pub rests_after: Option<i64>,
    /// After this instant nothing more begins.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its first message was begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// Makes an empty campaign.
///
/// # Errors
/// [`Error::NoAccount`]; [`Error::BadCampaign`] names what is wrong with it.
pub async fn create(conn: &mut PgConnection, new: &NewCampaign, by: &By<'_>) -> Result<CampaignId, Error> {
    let purpose = |text: &str| {
        let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        text.len() <= 80
            && text.split_once('.').is_some_and(|(duty, what)| word(duty) && !duty.contains('_') && word(what))
    };
    if new.name.trim().is_empty() || new.name.chars().count() > 120 || new.name.chars().any(char::is_control) {
        return Err(Error::BadCampaign("name", "must be one line of 1 to 120 characters"));
    }
    if !purpose(&new.purpose) {
        return Err(Error::BadCampaign("purpose", "must be two words such as marketing.offers"));
    }
    let class = class_of(&new.template)?;
    if new.class != class && new.class != MessageClass::Marketing {
        return Err(Error::BadCampaign("class", "must be the template's own, or marketing"));
    }
    if new.expires_at <= by.now {
        return Err(Error::BadCampaign("expires_at", "must lie ahead"));
    }
    if new.rests_after.is_some_and(|people| people < 1) {
        return Err(Error::BadCampaign("rests_after", "must be at least 1"));
    }
    let mut tx = conn.begin().await?;
    let number = find_number(&mut tx, new.business).await?.ok_or(Error::NoAccount)?;
    let id = CampaignId(by.chance.uuid_v7(by.now));
    store::insert(&mut tx, id, new, &number, by.now).await?;
    let details = json!({ "purpose": new.purpose, "class": new.class, "template": new.template });
    record(&mut tx, words::CAMPAIGN_CREATED, (new.business, id), details, by).await?;
    tx.commit().await?;
    Ok(id)
}

/// What kind of thing the words of a folder are, if a campaign can say them.
///
/// # Errors
/// [`Error::BadCampaign`]: there are none, they are for codes, or they have a file at their head.
pub fn class_of(template: &str) -> Result<MessageClass, Error> {
    let unknown = "is none that is known here: `muneem messaging templates list` shows them";
    let words = library().find(template, Language::En).ok_or(Error::BadCampaign("template", unknown))?;
    match (words.class(), &words.header) {
        (MessageClass::Otp, _) => Err(Error::BadCampaign("template", "is for codes, which are asked for one by one")),
        (_, Header::Document | Header::Image) => {
            Err(Error::BadCampaign("template", "has a file at its head, which a campaign does not send"))
        }
        (class, Header::None | Header::Text(_)) => Ok(class),
    }
}

/// Lets a campaign go out: a draft for the first time, a paused one again.
///
/// # Errors
/// [`Error::NoSuchCampaign`]; [`Error::CampaignOver`]; [`Error::BadCampaign`] where nobody is in it or its time is over.
pub async fn start(
    conn: &mut PgConnection,
    (business, id): (BusinessId, CampaignId),
    by: &By<'_>,
) -> Result<(), Error> {
    let mut tx = conn.begin().await?;
    let campaign = store::lock(&mut tx, business, id).await?.ok_or(Error::NoSuchCampaign)?;
    go(&mut tx, &campaign, by).await?;
    tx.commit().await?;
    Ok(())
}

/// Lets a campaign that rests go on. With `rests_after` it rests again after so many messages more.
///
/// # Errors
/// [`Error::CampaignNotBegun`] for a draft; as [`start`].
pub async fn resume(
    conn: &mut PgConnection,
    (business, id): (BusinessId, CampaignId),
    rests_after: Option<i64>,
    by: &By<'_>,
) -> Result<(), Error> {
    if rests_after.is_some_and(|messages| messages < 1) {
        return Err(Error::BadCampaign("rests_after", "must be at least 1"));
    }
    let mut tx = conn.begin().await?;
    let campaign = store::lock(&mut tx, business, id).await?.ok_or(Error::NoSuchCampaign)?;
    if campaign.state == CampaignState::Draft {
        return Err(Error::CampaignNotBegun);
    }
    go(&mut tx, &campaign, by).await?;
    if let Some(more) = rests_after {
        let begun = begun(&store::count(&mut tx, id).await?);
        store::set_rest(&mut tx, id, begun.saturating_add(more)).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Lets a locked campaign go out.
async fn go(tx: &mut PgConnection, campaign: &Campaign, by: &By<'_>) -> Result<(), Error> {
    let (business, id) = (campaign.business_id, campaign.campaign_id);
    match campaign.state {
        CampaignState::Running => return Ok(()),
        CampaignState::Stopped | CampaignState::Done => return Err(Error::CampaignOver),
        CampaignState::Draft | CampaignState::Paused => {}
    }
    if campaign.expires_at <= by.now {
        return Err(Error::BadCampaign("expires_at", "has passed: make another campaign"));
    }
    let counts = store::count(tx, id).await?;
    if counts.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Error::BadCampaign("people", "are missing: add some before it goes out"));
    }
    store::set_state(tx, id, CampaignState::Running, None, by.now).await?;
    for stream in 0..STREAMS {
        let wave = SendWave { campaign_id: id, stream };
        queue::enqueue(&mut *tx, &NewJob::of(business, &wave)?.lane(lane_of(campaign.class))).await?;
    }
    record(tx, words::CAMPAIGN_STARTED, (business, id), json!({ "messages": counts }), by).await
}

/// How many messages of a campaign were begun, from its counts.
fn begun(counts: &serde_json::Value) -> i64 {
    let states = counts.as_object().into_iter().flatten();
    states.filter(|(state, _)| state.as_str() != "queued").filter_map(|(_, messages)| messages.as_i64()).sum()
}

/// What is demanded by law does not wait behind what sells.
const fn lane_of(class: MessageClass) -> queue::Lane {
    match class {
        MessageClass::Statutory => queue::Lane::Statutory,
        _ => queue::Lane::Bulk,
    }
}

/// Holds a campaign, or ends it for good: within two seconds of the commit no further POST of it begins; those under way at
/// this moment are told of by their attempts. One that rests already rests on.
///
/// # Errors
/// [`Error::NoSuchCampaign`]; [`Error::CampaignOver`] when it has ended already; [`Error::CampaignNotBegun`] for a draft that
/// is to rest.
pub async fn halt(
    conn: &mut PgConnection,
    (business, id): (BusinessId, CampaignId),
    for_good: bool,
    by: &By<'_>,
) -> Result<(), Error> {
    let mut tx = conn.begin().await?;
    let campaign = store::lock(&mut tx, business, id).await?.ok_or(Error::NoSuchCampaign)?;
    // What went out may still have ways to take, which a stop ends.
    if campaign.ended_at.is_some()
        && !(for_good && campaign.state == CampaignState::Done && store::has_more(&mut tx, id).await?)
    {
        return Err(Error::CampaignOver);
    }
    match campaign.state {
        CampaignState::Draft if !for_good => return Err(Error::CampaignNotBegun),
        CampaignState::Paused if !for_good => return Ok(()),
        _ => {}
    }
    let (state, word) = if for_good {
        (CampaignState::Stopped, words::CAMPAIGN_STOPPED)
    } else {
        (CampaignState::Paused, words::CAMPAIGN_PAUSED)
    };
    store::set_state(&mut tx, id, state, None, by.now).await?;
    let counts = store::count(&mut tx, id).await?;
    record(&mut tx, word, (business, id), json!({ "messages": counts }), by).await?;
    tx.commit().await?;
    Ok(())
}

/// One campaign with how many of its messages are in which state; of any business when `business` is absent.
///
/// # Errors
/// The database fails.
pub async fn find(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    id: CampaignId,
) -> Result<Option<(Campaign, serde_json::Value)>, Error> {
    let Some(campaign) = store::find(conn, business, id).await? else { return Ok(None) };
    let counts = store::count(conn, id).await?;
    Ok(Some((campaign, counts)))
}

/// A page of campaigns, newest first: those older than `before`.
///
/// # Errors
/// The database fails.
pub async fn list(
    conn: &mut PgConnection,
    business: Option<BusinessId>,
    before: Option<CampaignId>,
    limit: u16,
) -> Result<Vec<Campaign>, Error> {
    store::list(conn, business, before, i64::from(limit.clamp(1, 1000))).await
}

/// Where a campaign stands.
pub(super) async fn state_of(
    conn: &mut PgConnection,
    business: BusinessId,
    id: CampaignId,
) -> Result<Option<CampaignState>, Error> {
    Ok(store::find(conn, Some(business), id).await?.map(|campaign| campaign.state))
}

/// One message more of a campaign, in this state.
pub(super) async fn count_more(
    conn: &mut PgConnection,
    (business, chance): (BusinessId, &dyn Chance),
    (id, state): (CampaignId, &str),
) -> Result<(), Error> {
    store::add_counts(conn, business, &[(id, state, 1)], chance).await
}

async fn record(
    tx: &mut PgConnection,
    word: Word,
    (business, id): (BusinessId, CampaignId),
    details: serde_json::Value,
    by: &By<'_>,
) -> Result<(), Error> {
    let id = id.to_string();
    let object = Object { kind: "campaign", id: &id };
    Ok(by.record(tx, Act { word, business: Some(business), object, details }).await?)
}
