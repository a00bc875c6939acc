//! How keys and walks stand, for people; and the schedules of the vault.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgConnection;

use super::{
    CheckColumns, Error, HostColumn, KeyInfo, Quarantined, RotateKeys, Stray, host, reseal_store as store, strays,
};
use crate::{
    people::BusinessId,
    schedule::{self, Declaration},
};

/// Rows of the quarantine that are shown.
const SHOWN: i64 = 100;

/// The walk under way, or the last one.
#[derive(Clone, Debug, Serialize)]
pub struct Walked {
    /// `running`, `paused`, `done` or `incomplete`.
    pub state: String,
    /// Keys it is about.
    pub keys: Vec<i64>,
    /// From 1; the last one finds nothing.
    pub pass: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Values sealed anew.
    pub resealed: i64,
    /// Rows looked at in this pass.
    pub visited: i64,
    /// Rows of all columns, as the planner estimates them.
    pub rows_expected: i64,
    /// Rows looked at a second, so far.
    pub rate: Option<f64>,
    /// Seconds until the pass is through at that rate.
    pub eta_secs: Option<i64>,
    /// How far it is in each column.
    pub columns: Vec<store::ResealColumn>,
}

/// How rotation stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The walk under way, or the last one; none: there was none.
    pub walk: Option<Walked>,
    /// The first values that do not open.
    pub quarantine: Vec<Quarantined>,
    /// All of them.
    pub quarantined: i64,
    /// Registered columns that are closed.
    pub closed: Vec<HostColumn>,
    /// Columns that values were sealed for and that nobody registered.
    pub strays: Vec<Stray>,
}

/// How rotation stands: for one business, what is hers of it, or all. The walk is the whole house's.
///
/// # Errors
/// The database fails.
pub async fn standing(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Standing, Error> {
    let walk = match store::find_run(&mut *db).await? {
        Some(run) => {
            let columns = store::list_columns(&mut *db, run.reseal_id).await?;
            Some(walked(run, columns))
        }
        None => None,
    };
    let quarantined = store::count_quarantine(&mut *db, business).await?.iter().map(|(_, count)| count).sum();
    let quarantine = store::list_quarantine(&mut *db, business, SHOWN).await?;
    let closed = host::list(&mut *db, business).await?.into_iter().filter(|column| !column.sound).collect();
    let strays = strays::list(db, business).await?;
    Ok(Standing { walk, quarantine, quarantined, closed, strays })
}

fn walked(run: store::Run, columns: Vec<store::ResealColumn>) -> Walked {
    let sum = |of: fn(&store::ResealColumn) -> i64| columns.iter().map(of).sum::<i64>();
    let (visited, busy_ms) = (sum(|column| column.visited), sum(|column| column.busy_ms));
    let rows_expected = sum(|column| column.rows_expected.max(column.visited));
    // The first pass is the one that writes; later ones look only, and have no rate of their own yet.
    let rate = (run.pass == 1 && busy_ms > 0).then(|| visited as f64 * 1000.0 / busy_ms as f64);
    let eta_secs = rate
        .filter(|rate| run.state == "running" && *rate > 0.0)
        .map(|rate| ((rows_expected - visited) as f64 / rate).ceil() as i64);
    Walked {
        state: run.state,
        keys: run.keys,
        pass: run.pass,
        started_at: run.started_at,
        ended_at: run.ended_at,
        resealed: sum(|column| column.resealed),
        visited,
        rows_expected,
        rate,
        eta_secs,
        columns,
    }
}

impl KeyInfo {
    /// What keeps this key from the next state, in words; nothing where all is as it should be.
    pub fn waits_for(&self, standing: &Standing, horizon: TimeDelta) -> Option<String> {
        match self.state.as_str() {
            "pending" => Some("until every process has heard of it".to_owned()),
            "decrypt_only" => Some(self.keeps_open(standing, horizon)),
            _ => None,
        }
    }

    fn keeps_open(&self, standing: &Standing, horizon: TimeDelta) -> String {
        if let Some(cleared_at) = self.cleared_at {
            let until = (cleared_at + horizon).date_naive();
            return format!("nothing refers to it; backups may until {until}");
        }
        if self.class == "business" {
            return "other keys are still wrapped by it".to_owned();
        }
        let bad = standing.quarantine.iter().filter(|bad| bad.key_id == Some(self.key_id)).count();
        if bad > 0 {
            return format!("{bad} values that do not open name it: see `muneem keys status`");
        }
        let strays = |stray: &&Stray| {
            stray.business == self.business
                && (stray.class == self.class || self.class == "index" && stray.column == self.purpose)
        };
        if let Some(stray) = standing.strays.iter().find(strays) {
            return format!("{} may hold its values and is not registered: `muneem keys columns add`", stray.column);
        }
        match standing.walk.as_ref().filter(|walk| walk.keys.contains(&self.key_id)) {
            Some(walk) if walk.state == "paused" => "sealing anew is paused: `muneem keys resume`".to_owned(),
            Some(walk) if walk.state == "running" => "its values are being sealed anew".to_owned(),
            Some(walk) if walk.state == "incomplete" => {
                "not all of its values could be sealed anew: see `muneem keys status`".to_owned()
            }
            _ => "its values are to be sealed anew".to_owned(),
        }
    }
}

/// What the vault does by the clock.
///
/// # Errors
/// A declaration means nothing; a test reads them all.
pub fn schedules() -> Result<Vec<Declaration>, schedule::Error> {
    Ok(vec![
        Declaration::of("vault.rotate-keys", "7 * * * *", &RotateKeys {})?,
        Declaration::of("vault.check-columns", "41 2 * * *", &CheckColumns { values: true })?,
        Declaration::of("vault.look-at-columns", "11 * * * *", &CheckColumns { values: false })?,
    ])
}
