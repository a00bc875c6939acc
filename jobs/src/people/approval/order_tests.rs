//! Whatever comes in whatever order, a decision stands where a few lines of arithmetic say.

use std::{cell::Cell, collections::BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{tests::plan, *};
use crate::people::{Role, testing::House};

#[derive(Clone, Copy, Debug)]
enum Happens {
    Yes(usize),
    No(usize),
    TakeBack(usize),
    Change(usize),
    CarryOut,
    Withdraw,
    RunOut,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0..4_usize).prop_map(Happens::Yes),
        1 => (0..4_usize).prop_map(Happens::No),
        2 => (0..4_usize).prop_map(Happens::TakeBack),
        2 => (0..4_usize).prop_map(Happens::Change),
        3 => Just(Happens::CarryOut),
        1 => Just(Happens::Withdraw),
        1 => Just(Happens::RunOut),
    ]
}

/// What should come of it.
struct Model {
    needed: usize,
    state: State,
    version: i32,
    yes: BTreeSet<usize>,
    askers: BTreeSet<usize>,
}

impl Model {
    /// Whether it may happen; then it has.
    fn take(&mut self, event: Happens) -> bool {
        if !self.state.is_open() {
            return matches!(event, Happens::RunOut);
        }
        match event {
            Happens::Yes(who) | Happens::No(who)
                if self.state == State::Approved || self.askers.contains(&who) || self.yes.contains(&who) =>
            {
                return false;
            }
            Happens::Yes(who) => {
                self.yes.insert(who);
                if self.yes.len() >= self.needed {
                    self.state = State::Approved;
                }
            }
            Happens::No(_) => self.state = State::Denied,
            Happens::TakeBack(who) => {
                self.yes.remove(&who);
                if self.yes.len() < self.needed {
                    self.state = State::Pending;
                }
            }
            Happens::Change(who) => {
                self.askers.insert(who);
                self.yes.clear();
                self.version += 1;
                self.state = State::Pending;
            }
            Happens::CarryOut if self.state == State::Pending => return false,
            Happens::CarryOut => self.state = State::CarriedOut,
            Happens::Withdraw => self.state = State::Withdrawn,
            Happens::RunOut => self.state = State::Expired,
        }
        true
    }
}

#[test]
fn any_order_of_events_ends_where_it_should() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (house, people) = runtime.block_on(async {
        let house = House::new().await;
        let mut people = Vec::new();
        for number in 1..=4 {
            people.push(Authority::of_staff(&house.staff(number, &[Role::Owner]).await));
        }
        (house, people)
    });
    let cases = Cell::new(0);
    let strategy = (1..=2_usize, proptest::collection::vec(happens(), 1..14));
    let config = Config { cases: 48, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |(needed, events)| {
            cases.set(cases.get() + 1);
            runtime.block_on(tell(&house, &people, (needed, &events), &format!("P-{}", cases.get())))
        })
        .expect("every order ends where it should");
}

async fn tell(
    house: &House,
    people: &[Authority],
    (needed, events): (usize, &[Happens]),
    id: &str,
) -> Result<(), TestCaseError> {
    let mut approval = house.ask(id, i16::try_from(needed).expect("small"), &people[0]).await;
    let mut model =
        Model { needed, state: State::Pending, version: 1, yes: BTreeSet::new(), askers: BTreeSet::from([0]) };
    for event in events {
        let expected = model.take(*event);
        let mut db = house.conn().await;
        let (approval_id, seen) = (approval.approval_id, approval.plan_sha256);
        let done = match *event {
            Happens::Yes(who) => {
                decide(&mut db, &house.vault, approval_id, &seen, Verdict::Approve, &house.by(&people[who])).await
            }
            Happens::No(who) => {
                decide(&mut db, &house.vault, approval_id, &seen, Verdict::Deny, &house.by(&people[who])).await
            }
            Happens::TakeBack(who) => take_back(&mut db, approval_id, &house.by(&people[who])).await,
            Happens::Change(who) => {
                let next = plan(&format!("plan {}", model.version));
                change_plan(&mut db, &house.vault, approval_id, &next, &house.by(&people[who])).await
            }
            Happens::CarryOut => {
                let mut tx = db.begin().await.expect("begun");
                let done = carry_out(&mut tx, approval_id, &seen, &house.by(&people[0])).await;
                if done.is_ok() {
                    tx.commit().await.expect("committed");
                }
                done
            }
            Happens::Withdraw => withdraw(&mut db, approval_id, &house.by(&people[0])).await,
            Happens::RunOut => {
                house.clock.forward(TimeDelta::days(3));
                Ok(approval.clone())
            }
        };
        drop(db);
        prop_assert_eq!(done.is_ok(), expected, "{:?} of {:?}: {:?}", event, events, done);
        approval = load(&mut *house.conn().await, approval_id, &people[0]).await.expect("it is there");
        let state = approval.state_at(house.now());
        prop_assert_eq!((state, approval.version), (model.state, model.version), "{:?} of {:?}", event, events);
    }
    Ok(())
}
