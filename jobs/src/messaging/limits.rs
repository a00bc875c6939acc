//! The carrier's limits, kept before the carrier has to: messages a second of a number, messages to one person, people a
//! portfolio writes to in 24 hours.
//!
//! The state is in Postgres and shared by all workers. Rates count real seconds by the database's clock, whatever the
//! installation's own clock says: the carrier does not move its own.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use tokio::time::Instant;

use super::{Error, store};
use crate::{outbound::carrier::NumberId, people::BusinessId, queue::JobContext};

/// A place in the rate that is not used so long after its beginning is not used at all.
pub(super) const PLACE_LASTS: Duration = Duration::from_millis(50);
/// Over which people are counted (Cloud API, messaging limits: unique users in a moving 24-hour period).
const COUNTED_FOR: TimeDelta = TimeDelta::hours(24);
/// What the count is kept by.
const BUCKET: TimeDelta = TimeDelta::minutes(5);

/// From whom, within which limits.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    pub(super) business: BusinessId,
    pub(super) number: &'a NumberId,
    pub(super) portfolio: &'a str,
    /// People that the portfolio may write to first in 24 hours; none: no limit.
    pub(super) daily_recipients: Option<i32>,
    /// Somebody waits at a screen.
    pub(super) urgent: bool,
}

/// What a message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It may be posted from this instant on, until [`PLACE_LASTS`] later.
    At(Instant),
    /// Not now: look again after this time. `scope` says which limit it is.
    Later {
        /// `rate`, `pair` or `portfolio`.
        scope: &'static str,
        /// How long to wait.
        wait: Duration,
    },
}

/// Asks for a place for a message to each of these people, in this order.
///
/// # Errors
/// The database fails.
pub(super) async fn ask(ctx: &JobContext, from: From<'_>, people: &[Vec<u8>]) -> Result<Vec<Place>, Error> {
    // A transaction of its own, and short: all who send from the number wait for its row.
    let mut conn = ctx.deps.db.acquire().await?;
    let places = store::take_places(&mut conn, from.number, people.len(), from.urgent).await?;
    let start = Instant::now() + places.first_in;
    let mut answers: Vec<_> = (0..people.len())
        .map(|place| match u32::try_from(place) {
            Ok(nth) if place < places.given => Place::At(start + places.apart * nth),
            nth => {
                let behind = nth.unwrap_or(u32::MAX).saturating_sub(u32::try_from(places.given).unwrap_or(0));
                Place::Later { scope: "rate", wait: places.look_again_in.max(places.apart * behind) }
            }
        })
        .collect();
    let given = &people[..places.given.min(people.len())];
    if given.is_empty() {
        return Ok(answers);
    }
    // The same person twice in one round: the second waits for the next.
    let mut seen = BTreeSet::new();
    for (answer, person) in answers.iter_mut().zip(given) {
        if !seen.insert(person) {
            *answer = Place::Later { scope: "pair", wait: Duration::from_secs(1) };
        }
    }
    let asked: Vec<_> = seen.into_iter().cloned().collect();
    let mut tx = sqlx::Connection::begin(&mut *conn).await?;
    // Six seconds between two messages to somebody are over before a crashed database is up; who was counted against the
    // day's limit is not.
    if from.daily_recipients.is_none() {
        store::leave_unsynced(&mut tx).await?;
    }
    let taken: BTreeSet<_> =
        store::take_pairs(&mut tx, (from.business, from.number), &asked).await?.into_iter().collect();
    if taken.len() < asked.len() {
        let refused: Vec<_> = asked.iter().filter(|person| !taken.contains(*person)).cloned().collect();
        for late in store::pair_waits(&mut tx, from.number, &refused).await? {
            for (answer, person) in answers.iter_mut().zip(given) {
                if *person == late.mark {
                    *answer = Place::Later { scope: "pair", wait: late.wait.max(Duration::from_secs(1)) };
                }
            }
        }
    }
    if let Some(limit) = from.daily_recipients {
        let now = ctx.now();
        let (reached, oldest) =
            store::count_reached(&mut tx, from.business, from.portfolio, now - COUNTED_FOR - BUCKET).await?;
        let room = i64::from(limit) - reached;
        let marks: Vec<_> = given.iter().filter(|person| taken.contains(*person)).cloned().collect();
        let within = (from.business, from.number, from.portfolio);
        let counted = store::note_reached(&mut tx, within, &marks, (now, now - COUNTED_FOR), room).await?;
        let counted: BTreeSet<_> = counted.into_iter().collect();
        let again = oldest.map_or(now + BUCKET, |oldest| oldest + COUNTED_FOR + BUCKET);
        let wait = (again - now).to_std().unwrap_or_default().max(Duration::from_secs(60));
        for (answer, person) in answers.iter_mut().zip(given) {
            if matches!(answer, Place::At(_)) && !counted.contains(person) {
                *answer = Place::Later { scope: "portfolio", wait };
            }
        }
    }
    tx.commit().await?;
    Ok(answers)
}

/// Waits for a place, and takes another one for as long as it was missed: whoever is held up on this machine must not
/// post into seconds that others use. False when `until` passes first.
///
/// # Errors
/// The database fails.
pub(super) async fn wait_for(ctx: &JobContext, from: From<'_>, at: Instant, until: Instant) -> Result<bool, Error> {
    let mut place = Some(at);
    loop {
        if let Some(at) = place {
            tokio::time::sleep_until(at.min(until)).await;
            let now = Instant::now();
            if now >= until {
                return Ok(false);
            }
            if now <= at + PLACE_LASTS {
                return Ok(true);
            }
        }
        let mut conn = ctx.deps.db.acquire().await?;
        let places = store::take_places(&mut conn, from.number, 1, from.urgent).await?;
        drop(conn);
        let now = Instant::now();
        if places.given > 0 {
            place = Some(now + places.first_in);
        } else {
            place = None;
            tokio::time::sleep_until((now + places.look_again_in).min(until)).await;
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use muneem_postgres::testing::TestDb;
    use sqlx::{Connection, PgConnection};
    use uuid::Uuid;

    use super::*;

    const NUMBER: &str = "106540352242922";

    async fn furnished(per_second: i32) -> (TestDb, BusinessId, NumberId) {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let business = BusinessId(Uuid::from_u128(1));
        sqlx::query("insert into muneem.people_businesses values ($1, 'sharma-mobiles', 'Sharma Mobiles', now())")
            .bind(business.0)
            .execute(&db.pool())
            .await
            .expect("a business");
        sqlx::query(
            "insert into muneem.messaging_accounts (phone_number_id, business_id, waba_id, display_phone, created_at,
                messages_per_second) values ($1, $2, '500600', '+919800000001', now(), $3)",
        )
        .bind(NUMBER)
        .bind(business.0)
        .bind(per_second)
        .execute(&db.pool())
        .await
        .expect("a number");
        (db, business, NumberId::parse(NUMBER).expect("digits"))
    }

    /// When each of the places given may be used, by the database's own clock.
    async fn take(conn: &mut PgConnection, wanted: i32, urgent: bool) -> Vec<f64> {
        let (given, start, apart): (i32, f64, f64) = sqlx::query_as(
            "select given, extract(epoch from starts_at)::float8, extract(epoch from apart)::float8
             from muneem.messaging_take_places($1, $2, $3)",
        )
        .bind(NUMBER)
        .bind(wanted)
        .bind(urgent)
        .fetch_one(conn)
        .await
        .expect("an answer");
        (0..given).map(|nth| start + f64::from(nth) * apart).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn four_who_ask_at_once_are_given_no_more_than_the_rate_and_the_urgent_never_wait_behind_them() {
        let (db, ..) = furnished(1000).await;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let pool = db.pool();
            asking.spawn(async move {
                let mut conn = pool.acquire().await.expect("a connection");
                let mut places = Vec::new();
                while places.len() < 150 {
                    places.extend(take(&mut conn, 30, false).await);
                }
                places
            });
        }
        let mut conn = db.pool().acquire().await.expect("a connection");
        let mut urgent = Vec::new();
        for _ in 0..10 {
            let now: f64 = sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8")
                .fetch_one(&mut *conn)
                .await
                .expect("a clock");
            let places = take(&mut conn, 1, true).await;
            assert_eq!(places.len(), 1, "there is room for what is urgent");
            // Its place begins when it asks, not after the places that others hold.
            urgent.push((now, places[0]));
        }
        let mut places: Vec<f64> = asking.join_all().await.concat();
        places.sort_by(f64::total_cmp);
        // 903 a second less the ten that were urgent: no two of the others are closer than a place, and no second, were
        // it as long as the whole of it, holds more than the limit.
        for pair in places.windows(2) {
            assert!(pair[1] - pair[0] > 0.001, "{} and {}", pair[0], pair[1]);
        }
        let mut all: Vec<f64> = places.iter().copied().chain(urgent.iter().map(|(_, at)| *at)).collect();
        all.sort_by(f64::total_cmp);
        for (first, at) in all.iter().enumerate() {
            let within = all[first..].iter().take_while(|other| **other < at + 1.0).count();
            assert!(within <= 1000, "{within} within a second");
        }
    }

    #[tokio::test]
    async fn a_carrier_that_says_too_much_is_given_half_and_then_more_again() {
        let (db, _, number) = furnished(80).await;
        let mut conn = db.pool().acquire().await.expect("a connection");
        let before = store::take_places(&mut conn, &number, 1, false).await.expect("a place");
        assert_eq!(before.given, 1);
        store::slow_down(&mut conn, &number, Duration::from_secs(2)).await.expect("slower");
        // Told again by those under way at the same moment: once is enough.
        store::slow_down(&mut conn, &number, Duration::from_secs(2)).await.expect("slower");
        let after = store::take_places(&mut conn, &number, 1, false).await.expect("an answer");
        assert_eq!(after.given, 0);
        assert!(after.look_again_in > Duration::from_secs(1), "{after:?}");
        let ratio = after.apart.as_secs_f64() / before.apart.as_secs_f64();
        assert!((1.9..=2.0).contains(&ratio), "{ratio}");
        sqlx::query("update muneem.messaging_paces set slowed_at = slowed_at - interval '10 minutes'")
            .execute(&mut *conn)
            .await
            .expect("ten minutes later");
        let later = store::take_places(&mut conn, &number, 1, false).await.expect("an answer");
        assert_eq!(later.apart, before.apart);
    }

    #[tokio::test]
    async fn one_person_gets_forty_at_once_and_then_one_in_six_seconds() {
        let (db, business, number) = furnished(80).await;
        let mut conn = db.pool().acquire().await.expect("a connection");
        let (asha, ravi) = (vec![1; 18], vec![2; 18]);
        let mut turns = 0;
        for _ in 0..60 {
            let mut tx = conn.begin().await.expect("a transaction");
            turns += store::take_pairs(&mut tx, (business, &number), std::slice::from_ref(&asha))
                .await
                .expect("asked")
                .len();
            tx.commit().await.expect("committed");
        }
        assert!((40..=41).contains(&turns), "{turns}");
        let both =
            store::take_pairs(&mut conn, (business, &number), &[asha.clone(), ravi.clone()]).await.expect("asked");
        assert_eq!(both, [ravi], "another person is another matter");
        let waits = store::pair_waits(&mut conn, &number, std::slice::from_ref(&asha)).await.expect("asked");
        assert!(waits[0].wait <= Duration::from_secs(6) && !waits[0].wait.is_zero(), "{:?}", waits[0].wait);
        store::push_pair(&mut conn, (business, &number), &asha, Duration::from_secs(64)).await.expect("pushed");
        let waits = store::pair_waits(&mut conn, &number, &[asha]).await.expect("asked");
        assert!(waits[0].wait > Duration::from_secs(60), "{:?}", waits[0].wait);
    }
}
