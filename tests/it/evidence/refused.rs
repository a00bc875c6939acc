//! No unaudited success: what cannot be recorded is not done.

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc};

use muneem_jobs::{
    evidence::words,
    messaging,
    queue::{NewJob, Steps},
};

use super::{
    causes,
    house::{Broken, House},
};

const TEST: &str = "atk_085_what_cannot_be_recorded_is_not_done";

/// Every act of ours that leaves evidence, against every way in which the log can refuse it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_085_what_cannot_be_recorded_is_not_done() {
    let house = House::open().await;
    let mut caused = BTreeSet::new();
    for group in causes::GROUPS {
        for case in group(Arc::clone(&house)).await {
            let before = house.state().await;
            for how in Broken::ALL {
                // A superuser's own commands ask for no right.
                if how == Broken::Revoked && case.as_superuser {
                    continue;
                }
                house.break_log(how).await;
                let outcome = (case.act)().await;
                house.mend_log(how).await;
                assert!(outcome.is_err(), "{}: done although the log is {how:?}", case.name);
                let after = house.state().await;
                let changed: Vec<_> = before.iter().zip(&after).filter(|(one, other)| one != other).collect();
                assert!(changed.is_empty(), "{}: {how:?} left {changed:?}", case.name);
            }
            let mut wanted = house.said().await;
            (case.act)().await.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            for word in &case.says {
                *wanted.entry(word.as_str().to_owned()).or_default() += 1;
                caused.insert(*word);
            }
            assert_eq!(house.said().await, wanted, "{}", case.name);
        }
    }
    let ours: BTreeSet<_> = words::ALL.iter().copied().filter(|word| word.test() == TEST).collect();
    let missing: Vec<_> = ours.difference(&caused).map(ToString::to_string).collect();
    assert!(missing.is_empty(), "nothing causes {missing:?}: add it to causes.rs");
    assert!(house.carrier.posts().values().all(|posts| *posts == 1), "posted unrecorded, and again");
}

/// Breaks the log when a job reaches a step.
struct BreakAt(Arc<House>, &'static str);

impl Steps for BreakAt {
    fn reached<'a>(&'a self, step: &'static str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            if step == self.1 {
                self.0.break_log(Broken::Refused).await;
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atk_085_a_post_whose_receipt_cannot_be_recorded_is_unknown_and_never_posted_twice() {
    let house = House::open().await;
    causes::set_account(&house).await;
    let message = house.message().await;
    let send = house.hold(&NewJob::of(house.business, &messaging::Send { message_id: message }).unwrap()).await;
    let steps = Arc::new(BreakAt(Arc::clone(&house), "messaging.posted"));
    let failure = house.run_with(&send, steps).await.expect_err("the receipt cannot be recorded");
    assert!(["evidence.database", "vault.evidence"].contains(&failure.cause), "{}", failure.cause);
    house.mend_log(Broken::Refused).await;
    assert_eq!(house.said().await.get(words::MESSAGE_SENT.as_str()), None, "nobody said that it was sent");

    // The queue runs the job again: it finds its forerunner's attempt and leaves it to the reconciliation.
    house.run(&send, None).await.expect("it ends");
    let mut db = house.app.acquire().await.unwrap();
    let timeline = messaging::find_timeline(&mut db, None, message).await.unwrap().expect("it is there");
    assert_eq!(timeline.message.state, messaging::State::Unknown);
    let said = house.said().await;
    for word in [words::OUTCOME_UNKNOWN, words::MESSAGE_ATTEMPTED] {
        assert_eq!(said.get(word.as_str()), Some(&1), "{word}");
    }
    assert_eq!(house.carrier.posts().into_values().collect::<Vec<_>>(), [1]);
}
