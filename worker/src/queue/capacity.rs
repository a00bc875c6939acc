use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muneem_jobs::queue::Lane;
use tokio::{sync::oneshot, time::Instant};

const LANES: usize = Lane::ALL.len();

/// Places for running jobs: each lane has some of its own, the rest go to the most urgent lane that waits. Waiting
/// makes a job more urgent: by one lane for each `ageing`, so that nothing waits for ever.
#[derive(Debug)]
pub(super) struct Capacity {
    state: Mutex<State>,
    ageing: Duration,
    reserved: [usize; LANES],
    shared: usize,
}

#[derive(Debug)]
struct State {
    /// Free places of the lane's own.
    own_free: [usize; LANES],
    shared_free: usize,
    waiting: [VecDeque<Waiter>; LANES],
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    place: oneshot::Sender<Place>,
}

/// A place for one running job; dropping it gives it to the next.
#[derive(Debug)]
pub(super) struct Place {
    capacity: Arc<Capacity>,
    lane: Lane,
    shared: bool,
    /// Given away already: dropping does nothing.
    spent: bool,
}

impl Capacity {
    pub(super) fn new(concurrency: usize, reserved: &HashMap<Lane, usize>, ageing: Duration) -> Self {
        let own: [usize; LANES] = std::array::from_fn(|place| *reserved.get(&Lane::ALL[place]).unwrap_or(&1).max(&1));
        let shared = concurrency.saturating_sub(own.iter().sum());
        Self {
            state: Mutex::new(State { own_free: own, shared_free: shared, waiting: Default::default() }),
            ageing,
            reserved: own,
            shared,
        }
    }

    /// Places the lane could take now.
    pub(super) fn room(&self, lane: Lane) -> usize {
        let state = self.lock();
        state.own_free[lane as usize] + state.shared_free
    }

    /// The most of one lane that can ever run at once.
    pub(super) fn most(&self, lane: Lane) -> usize {
        self.reserved[lane as usize] + self.shared
    }

    /// Waits for a place.
    pub(super) async fn acquire(self: &Arc<Self>, lane: Lane) -> Place {
        let waiter = {
            let mut state = self.lock();
            let own = lane as usize;
            if state.own_free[own] > 0 {
                state.own_free[own] -= 1;
                return self.place(lane, false);
            }
            if state.shared_free > 0 {
                state.shared_free -= 1;
                return self.place(lane, true);
            }
            let (place, waiter) = oneshot::channel();
            state.waiting[own].push_back(Waiter { since: Instant::now(), place });
            waiter
        };
        match waiter.await {
            Ok(place) => place,
            // Cannot happen: a waiter is only dropped with the state, which `self` keeps.
            Err(_) => std::future::pending().await,
        }
    }

    fn place(self: &Arc<Self>, lane: Lane, shared: bool) -> Place {
        Place { capacity: Arc::clone(self), lane, shared, spent: false }
    }

    fn release(self: &Arc<Self>, lane: Lane, shared: bool) {
        loop {
            let mut state = self.lock();
            let heir = if shared {
                self.most_urgent(&state, Instant::now())
            } else {
                Some(lane).filter(|_| !state.waiting[lane as usize].is_empty())
            };
            let Some(heir) = heir else {
                if shared {
                    state.shared_free += 1;
                } else {
                    state.own_free[lane as usize] += 1;
                }
                return;
            };
            let Some(waiter) = state.waiting[heir as usize].pop_front() else { continue };
            drop(state);
            match waiter.place.send(self.place(heir, shared)) {
                Ok(()) => return,
                // Gone while it waited: the next one.
                Err(mut place) => place.spent = true,
            }
        }
    }

    fn most_urgent(&self, state: &State, now: Instant) -> Option<Lane> {
        Lane::ALL
            .into_iter()
            .filter_map(|lane| {
                let waited = now.saturating_duration_since(state.waiting[lane as usize].front()?.since);
                let lifted = waited.as_secs_f64() / self.ageing.as_secs_f64();
                Some((lane as usize as f64 - lifted, lane))
            })
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, lane)| lane)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.spent {
            self.spent = true;
            let capacity = Arc::clone(&self.capacity);
            capacity.release(self.lane, self.shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(concurrency: usize) -> Arc<Capacity> {
        let reserved = Lane::ALL.into_iter().map(|lane| (lane, 1)).collect();
        Arc::new(Capacity::new(concurrency, &reserved, Duration::from_secs(10)))
    }

    #[tokio::test]
    async fn a_full_house_keeps_a_place_for_each_lane() {
        let capacity = capacity(8);
        let mut held = Vec::new();
        while capacity.room(Lane::Bulk) > 0 {
            held.push(capacity.acquire(Lane::Bulk).await);
        }
        assert_eq!(held.len(), 4, "one of its own and the three shared ones");
        assert_eq!(capacity.room(Lane::Otp), 1);
        let _otp = capacity.acquire(Lane::Otp).await;
    }

    #[test]
    fn the_most_urgent_lane_is_next_and_waiting_makes_urgent() {
        let capacity = capacity(6);
        let begun = Instant::now();
        let mut state = capacity.lock();
        for (lane, since) in [(Lane::Bulk, begun), (Lane::Otp, begun + Duration::from_secs(29))] {
            state.waiting[lane as usize].push_back(Waiter { since, place: oneshot::channel().0 });
        }
        let early = capacity.most_urgent(&state, begun + Duration::from_secs(29));
        assert_eq!(early, Some(Lane::Otp), "bulk is three lanes below and has aged by less");
        state.waiting[Lane::Otp as usize][0].since = begun + Duration::from_secs(31);
        assert_eq!(capacity.most_urgent(&state, begun + Duration::from_secs(31)), Some(Lane::Bulk));
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_costs_no_place() {
        let capacity = capacity(5);
        let first = capacity.acquire(Lane::Otp).await;
        let waiting = {
            let capacity = Arc::clone(&capacity);
            tokio::spawn(async move { capacity.acquire(Lane::Otp).await })
        };
        tokio::task::yield_now().await;
        waiting.abort();
        let _ = waiting.await;
        drop(first);
        assert_eq!(capacity.room(Lane::Otp), 1);
    }
}
