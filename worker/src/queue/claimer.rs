use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use muneem_jobs::queue::{
    Error, Lane,
    work::{self, Claimed, Lain, Want},
};
use tokio::{sync::mpsc::UnboundedSender, time::Instant};
use uuid::Uuid;

use super::{Shared, inhand::InHand};

/// Looks for work: at once when told, every few milliseconds while there is much, else at the poll.
pub(super) struct Claimer {
    shared: Arc<Shared>,
    lanes: HashMap<Lane, LaneState>,
    /// Payloads that are sealed, or must be, take this way to their lane.
    opener: UnboundedSender<Arc<InHand>>,
    /// Producers need not notify until then; this worker looks by itself.
    awake_until: Option<Instant>,
    last_tick: Option<Instant>,
    next_due: Option<Instant>,
    /// The last instant of a claim whose answer arrived, by the database's time.
    last_claim: Option<DateTime<Utc>>,
    /// A claim's answer was lost: what it took must go back before the next.
    claim_lost: bool,
    /// Nobody takes what is claimed for one of the lanes, or opens payloads.
    lane_ended: bool,
    /// Start of, and jobs claimed in, the present slice of time.
    slice: (Instant, usize),
    /// Jobs claimed in the last whole slice.
    last_slice: usize,
}

struct LaneState {
    queue: UnboundedSender<Arc<InHand>>,
    /// The business served last.
    after: Uuid,
    /// Claimed beyond the free places, so that tiny jobs need no round trip each.
    ahead: usize,
    settled_before: usize,
    looked_at: Instant,
}

/// Most jobs claimed ahead in one lane.
const MOST_AHEAD: usize = 2000;
/// Jobs are claimed ahead for so long at the lane's present rate: what a claim and an acknowledgement take.
const AHEAD_FOR: Duration = Duration::from_millis(40);
/// While it stays awake it looks this often.
const AWAKE_POLL: Duration = Duration::from_millis(4);
/// How long it stays awake at a time: one small write each.
const AWAKE_FOR: Duration = Duration::from_millis(1000);
/// Stays awake from this many jobs in a slice on; below, a NOTIFY each costs nobody anything.
const BUSY_SLICE: (Duration, usize) = (Duration::from_millis(250), 25);
/// Timed jobs, slots and dead workers are looked after this often.
const TICK: Duration = Duration::from_millis(1000);
const AWAKE_TICK: Duration = Duration::from_millis(50);

impl Claimer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queues: HashMap<Lane, UnboundedSender<Arc<InHand>>>,
        opener: UnboundedSender<Arc<InHand>>,
    ) -> Self {
        let now = Instant::now();
        let lanes = queues
            .into_iter()
            .map(|(lane, queue)| {
                (lane, LaneState { queue, after: Uuid::nil(), ahead: 0, settled_before: 0, looked_at: now })
            })
            .collect();
        Self {
            shared,
            lanes,
            opener,
            awake_until: None,
            last_tick: None,
            next_due: None,
            last_claim: None,
            claim_lost: false,
            lane_ended: false,
            slice: (now, 0),
            last_slice: 0,
        }
    }

    /// Claims until the process drains, or a lane ends before its time; dropping the queues' ends then closes the lanes.
    pub(super) async fn run(mut self) {
        let mut trouble = Duration::from_millis(50);
        while !self.shared.draining.is_cancelled() && !self.lane_ended {
            // A connection that is gone without a word must not take the claimer with it.
            let look = tokio::time::timeout(self.shared.settings.lease, self.look()).await;
            match look.unwrap_or(Err(Error::Database(sqlx::Error::PoolTimedOut))) {
                Ok(0) => {
                    trouble = Duration::from_millis(50);
                    self.rest().await;
                }
                Ok(_) => trouble = Duration::from_millis(50),
                Err(error) => {
                    tracing::warn!(%error, "cannot look for jobs; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(trouble) => {}
                        () = self.shared.draining.cancelled() => {}
                    }
                    trouble = (trouble * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    /// One look: what is due goes in line, then claims. Answers how many jobs it got.
    async fn look(&mut self) -> Result<usize, Error> {
        let now = Instant::now();
        let tick_pause = if self.awake(now) { AWAKE_TICK } else { TICK };
        let due = self.next_due.is_some_and(|due| due <= now);
        let told = self.shared.tick_wanted.swap(false, Ordering::AcqRel);
        if told || due || self.last_tick.is_none_or(|last| now.duration_since(last) >= tick_pause) {
            self.tick(now).await?;
        }
        let wants = self.wants(now);
        if wants.iter().all(|want| want.jobs == 0) {
            return Ok(0);
        }
        let worker = self.shared.hands.worker();
        let mut conn = self.shared.db.acquire().await.map_err(Error::Database)?;
        if self.claim_lost {
            let released = work::release(&mut conn, worker, self.last_claim).await?;
            tracing::warn!(worker, released, "a claim's answer was lost; what it took is back in line");
        }
        self.claim_lost = true;
        let mut claimed = work::claim(&mut conn, worker, &wants).await?;
        self.claim_lost = false;
        self.last_claim = claimed.iter().map(|one| one.claimed_at).max().or(self.last_claim);
        drop(conn);
        let got = claimed.len();
        // The database updates in the order it likes; within a lane and business, the line's order is the id's.
        claimed.sort_by_key(|one| (one.lane, one.enqueued_at, one.job));
        for one in claimed {
            self.hand_over(one, worker);
        }
        self.count(now, got);
        self.stay_awake().await?;
        Ok(got)
    }

    async fn tick(&mut self, now: Instant) -> Result<(), Error> {
        let mut conn = self.shared.db.acquire().await.map_err(Error::Database)?;
        let tick = work::tick(&mut conn).await?;
        self.last_tick = Some(now);
        self.next_due = tick.next_due.map(|due| {
            let wait = (due - self.shared.deps.clock.now()).to_std().unwrap_or_default();
            // Two clocks differ a little, and a due row may be held for a moment: never a busy loop.
            now + wait.clamp(Duration::from_millis(5), TICK)
        });
        if tick.reaped > 0 {
            tracing::warn!(jobs = tick.reaped, "took jobs back from a dead worker");
        }
        Ok(())
    }

    fn wants(&mut self, now: Instant) -> Vec<Want> {
        let mut wants = Vec::with_capacity(self.lanes.len());
        for lane in Lane::ALL {
            let Some(state) = self.lanes.get_mut(&lane) else { continue };
            let settled = self.shared.hands.settled(lane);
            let elapsed = now.duration_since(state.looked_at).max(Duration::from_micros(500));
            if elapsed >= Duration::from_millis(2) || settled > state.settled_before {
                let rate = (settled - state.settled_before) as f64 / elapsed.as_secs_f64();
                let ahead = (rate * AHEAD_FOR.as_secs_f64()) as usize;
                // Up at once, down slowly: a pause between two batches is no reason to start over.
                state.ahead = ahead.max(state.ahead * 7 / 8).min(MOST_AHEAD);
                state.settled_before = settled;
                state.looked_at = now;
            }
            let in_hand = self.shared.hands.in_hand(lane);
            let room = self.shared.capacity.room(lane).min(self.shared.capacity.most(lane));
            let begun = self.shared.capacity.most(lane).saturating_sub(room).min(in_hand);
            let waiting = in_hand - begun;
            let want = (room + state.ahead).saturating_sub(waiting);
            // Crumbs are left until they make a claim worth its round trip.
            let jobs = if want * 4 < state.ahead { 0 } else { want };
            wants.push(Want { lane, jobs: u32::try_from(jobs).unwrap_or(u32::MAX), after: state.after });
        }
        wants
    }

    fn hand_over(&mut self, claimed: Claimed, worker: i64) {
        let Some(state) = self.lanes.get_mut(&claimed.lane) else { return };
        state.after = claimed.business.0;
        // A kind that this program does not know may be one that seals.
        let sealed = matches!(claimed.payload, Lain::Sealed(_))
            || self.shared.kinds.get(claimed.kind.as_str()).is_none_or(|kind| kind.seals);
        let in_hand = self.shared.hands.take(claimed, worker);
        let next = if sealed { &self.opener } else { &state.queue };
        if let Err(unsent) = next.send(in_hand) {
            // The lane, or the opener, ended. While nobody drains, claiming for it again would go round in circles.
            self.lane_ended = true;
            self.shared.settle(&unsent.0, super::acker::Outcome::release(&unsent.0));
        }
    }

    fn awake(&self, now: Instant) -> bool {
        self.awake_until.is_some_and(|until| until > now)
    }

    fn count(&mut self, now: Instant, got: usize) {
        let (since, so_far) = self.slice;
        if now.duration_since(since) >= BUSY_SLICE.0 {
            self.last_slice = so_far;
            self.slice = (now, got);
        } else {
            self.slice.1 += got;
        }
    }

    async fn stay_awake(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let busy = self.slice.1.max(self.last_slice) >= BUSY_SLICE.1;
        let ends_soon = self.awake_until.is_none_or(|until| until < now + AWAKE_FOR / 3);
        if !busy || !ends_soon {
            return Ok(());
        }
        let lanes: Vec<Lane> = Lane::ALL
            .into_iter()
            .filter(|lane| self.lanes.contains_key(lane) && self.shared.capacity.room(*lane) > 0)
            .collect();
        let mut conn = self.shared.db.acquire().await.map_err(Error::Database)?;
        work::stay_awake(&mut conn, self.shared.hands.worker(), AWAKE_FOR, &lanes).await?;
        // A little longer than producers believe.
        self.awake_until = Some(Instant::now() + AWAKE_FOR);
        Ok(())
    }

    async fn rest(&self) {
        let now = Instant::now();
        let pause = if self.awake(now) { AWAKE_POLL } else { self.shared.settings.poll };
        let until = self.next_due.map_or(now + pause, |due| due.min(now + pause));
        tokio::select! {
            () = self.shared.wake.notified() => {}
            () = tokio::time::sleep_until(until) => {}
            () = self.shared.draining.cancelled() => {}
        }
    }
}
