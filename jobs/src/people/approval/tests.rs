use chrono::TimeDelta;
use serde_json::json;

use super::*;
use crate::people::{self, NewToken, Presented, Role, remove_staff, testing::House, withdraw_role};

pub(super) fn plan(text: &str) -> Plan {
    let summary = vec![Line { label: "What".to_owned(), value: text.to_owned() }];
    Plan { content: json!({ "text": text }), summary }
}

impl House {
    pub(super) fn subject<'a>(&self, id: &'a str) -> Subject<'a> {
        Subject { business_id: Some(self.shop), kind: Kind::RightsPlan, id }
    }

    /// Asks about the thing with this id, for two days.
    pub(super) async fn ask(&self, id: &str, needed: i16, by: &Authority) -> Approval {
        self.try_ask(id, needed, by).await.expect("asked")
    }

    async fn try_ask(&self, id: &str, needed: i16, by: &Authority) -> Result<Approval, Error> {
        let plan = plan("one");
        let asked = Ask {
            subject: self.subject(id),
            plan: &plan,
            approvers_needed: needed,
            expires_at: self.now() + TimeDelta::days(2),
        };
        ask(&mut *self.conn().await, &self.vault, &asked, &self.by(by)).await
    }

    async fn decide(&self, approval: &Approval, verdict: Verdict, by: &Authority) -> Result<Approval, Error> {
        let mut db = self.conn().await;
        decide(&mut db, &self.vault, approval.approval_id, &approval.plan_sha256, verdict, &self.by(by)).await
    }

    async fn yes(&self, approval: &Approval, by: &Staff) -> Result<Approval, Error> {
        self.decide(approval, Verdict::Approve, &Authority::of_staff(by)).await
    }

    async fn change(&self, approval: &Approval, text: &str, by: &Authority) -> Result<Approval, Error> {
        let mut db = self.conn().await;
        change_plan(&mut db, &self.vault, approval.approval_id, &plan(text), &self.by(by)).await
    }

    async fn carry_out(&self, approval: &Approval) -> Result<Approval, Error> {
        let operator = Authority::operator();
        let mut tx = self.pool.begin().await.expect("begun");
        let done = carry_out(&mut tx, approval.approval_id, &approval.plan_sha256, &self.by(&operator)).await?;
        tx.commit().await.expect("committed");
        Ok(done)
    }

    async fn now_of(&self, approval: &Approval) -> Approval {
        load(&mut *self.conn().await, approval.approval_id, &Authority::operator()).await.expect("it is there")
    }
}

/// The constraint by which the database refuses a statement of the app role.
async fn refused(house: &House, statement: &str, approval: &Approval) -> String {
    let bound = statement.replace("$1", &format!("'{}'", approval.approval_id));
    let error = sqlx::query(sqlx::AssertSqlSafe(bound)).execute(&house.pool).await.expect_err(statement);
    error.as_database_error().and_then(|error| error.constraint()).expect("a named refusal").to_owned()
}

/// A vote that the program would never write.
async fn forge(house: &House, approval: &Approval, staff: &Staff) -> String {
    let statement = format!(
        "insert into muneem.people_approval_votes
             (vote_id, approval_id, business_id, version, plan_sha256, staff_id, verdict, voted_at)
         select gen_random_uuid(), approval_id, business_id, version, plan_sha256, '{}', 'approve', requested_at
         from muneem.people_approvals where approval_id = $1",
        staff.staff_id
    );
    refused(house, &statement, approval).await
}

#[tokio::test]
async fn enough_people_say_yes_and_the_plan_is_carried_out_once() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let (two, three) = (house.staff(2, &[Role::Approver]).await, house.staff(3, &[Role::Approver]).await);
    let asked = house.ask("R-1", 2, &Authority::of_staff(&owner)).await;
    assert!(matches!(house.carry_out(&asked).await, Err(Error::NotApproved)));
    let once = house.yes(&asked, &two).await.expect("counted");
    assert_eq!((once.state, once.approved_at), (State::Pending, None), "one of two");
    let twice = house.yes(&asked, &three).await.expect("counted");
    assert_eq!((twice.state, twice.approved_at), (State::Approved, Some(house.now())));
    let done = house.carry_out(&asked).await.expect("as approved");
    assert_eq!((done.state, done.ended_at), (State::CarriedOut, Some(house.now())));
    assert!(matches!(house.carry_out(&asked).await, Err(Error::NotOpen(State::CarriedOut))), "once");
    assert_eq!(
        house.told_of(asked.approval_id).await,
        ["people.approval_asked", "people.approval_given", "people.approval_given", "people.approval_carried_out"]
    );
    let mut db = house.conn().await;
    let by = Authority::of_staff(&two);
    let shown = open_summary(&mut db, &house.vault, asked.approval_id, &by).await.expect("she may");
    assert_eq!(shown, plan("one").summary);
    let again = house.ask("R-1", 1, &Authority::of_staff(&owner)).await;
    let listed = list(&mut db, &Filter { open: true, ..Filter::default() }, 10, &by).await.expect("listed");
    assert_eq!(listed.iter().map(|one| one.approval_id).collect::<Vec<_>>(), [again.approval_id]);
    let another = Ask {
        subject: house.subject("R-1"),
        plan: &plan("two"),
        approvers_needed: 1,
        expires_at: house.now() + TimeDelta::days(1),
    };
    let second = ask(&mut db, &house.vault, &another, &house.by(&by)).await;
    assert!(matches!(second, Err(Error::AlreadyOpen)), "{second:?}");
    for (needed, days) in [(0, 1), (6, 1), (1, 0), (1, 91)] {
        let odd = Ask {
            subject: house.subject("R-2"),
            approvers_needed: needed,
            expires_at: house.now() + TimeDelta::days(days),
            ..another
        };
        let refused = ask(&mut db, &house.vault, &odd, &house.by(&by)).await;
        assert!(matches!(refused, Err(Error::BadNumber | Error::BadExpiry)), "{needed} {days}: {refused:?}");
    }
}

#[tokio::test]
async fn one_no_ends_it() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let (two, three) = (house.staff(2, &[Role::Approver]).await, house.staff(3, &[Role::Approver]).await);
    let asked = house.ask("R-1", 2, &owner).await;
    house.yes(&asked, &two).await.expect("counted");
    let denied = house.decide(&asked, Verdict::Deny, &Authority::of_staff(&three)).await.expect("counted");
    assert_eq!(denied.state, State::Denied);
    assert!(matches!(house.yes(&asked, &three).await, Err(Error::NotOpen(State::Denied))));
    assert!(matches!(house.carry_out(&asked).await, Err(Error::NotOpen(State::Denied))));
    let votes = list_votes(&mut *house.conn().await, asked.approval_id, &owner).await.expect("listed");
    assert_eq!(votes.iter().map(|vote| vote.verdict).collect::<Vec<_>>(), [Verdict::Approve, Verdict::Deny]);
    let told = house.told_of(asked.approval_id).await;
    assert_eq!(told, ["people.approval_asked", "people.approval_given", "people.approval_denied"]);
}

#[tokio::test]
async fn atk_063_a_changed_plan_asks_everybody_anew() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let two = house.staff(2, &[Role::Approver]).await;
    let first = house.ask("R-1", 1, &owner).await;
    assert_eq!(house.yes(&first, &two).await.expect("counted").state, State::Approved);
    let second = house.change(&first, "two", &owner).await.expect("changed");
    assert_eq!((second.state, second.version), (State::Pending, 2));
    assert!(matches!(house.change(&second, "two", &owner).await, Err(Error::SamePlan)));
    assert!(matches!(house.carry_out(&first).await, Err(Error::PlanChanged)), "the old one was approved");
    assert!(matches!(house.carry_out(&second).await, Err(Error::NotApproved)), "the new one was not");
    assert!(matches!(house.yes(&first, &two).await, Err(Error::PlanChanged)), "she saw the old one");
    assert_eq!(house.yes(&second, &two).await.expect("counted").state, State::Approved);
    let third = house.change(&second, "one", &owner).await.expect("changed back");
    assert!(matches!(house.carry_out(&third).await, Err(Error::NotApproved)), "what was approved once is asked anew");

    // The database refuses the same without the program.
    for (statement, constraint) in [
        ("update muneem.people_approvals set state = 'approved', approved_at = now() where approval_id = $1",
            "people_approvals_enough"),
        ("update muneem.people_approvals set state = 'carried_out', approved_at = now(), ended_at = now()
          where approval_id = $1", "people_approvals_approved_first"),
        ("update muneem.people_approvals set plan_sha256 = sha256('x') where approval_id = $1",
            "people_approvals_plan_asks_anew"),
        ("update muneem.people_approvals set version = version + 1 where approval_id = $1",
            "people_approvals_plan_asks_anew"),
        ("update muneem.people_approvals set requested_staff = null where approval_id = $1",
            "people_approvals_plan_asks_anew"),
        ("insert into muneem.people_approval_votes
              (vote_id, approval_id, business_id, version, plan_sha256, staff_id, verdict, voted_at)
          select gen_random_uuid(), approval_id, business_id, version - 1, plan_sha256,
              (select staff_id from muneem.people_staff limit 1), 'approve', requested_at
          from muneem.people_approvals where approval_id = $1", "people_approval_votes_same_plan"),
        ("insert into muneem.people_approvals select gen_random_uuid(), business_id, kind, 'R-9', plan_sha256, version,
              summary_sealed, approvers_needed, requested_by, requested_staff, requested_at, expires_at, 'approved',
              now(), null
          from muneem.people_approvals where approval_id = $1", "people_approvals_begins_pending"),
    ] {
        assert_eq!(refused(&house, statement, &third).await, constraint, "{statement}");
    }
    house.yes(&third, &two).await.expect("counted");
    house.carry_out(&third).await.expect("at last");
    let told = house.told_of(third.approval_id).await;
    assert_eq!(told.iter().filter(|verb| *verb == "people.approval_plan_changed").count(), 2, "{told:?}");
    let statement = "update muneem.people_approvals set state = 'pending', ended_at = null where approval_id = $1";
    assert_eq!(refused(&house, statement, &third).await, "people_approvals_ended");
}

#[tokio::test]
async fn atk_064_whoever_asks_approves_under_no_account_and_no_machine_does() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner, Role::Approver]).await;
    let two = house.staff(2, &[Role::Approver]).await;
    let by_owner = Authority::of_staff(&owner);
    let asked = house.ask("R-1", 2, &by_owner).await;

    assert!(matches!(house.yes(&asked, &owner).await, Err(Error::SecondPersonNeeded)));
    assert_eq!(forge(&house, &asked, &owner).await, "people_approval_votes_second_person");

    let machine = NewToken { business_id: Some(house.shop), ..NewToken::bootstrap() };
    let mut db = house.conn().await;
    let (_, bearer) = people::create_token(&mut db, machine, &*house.clock, &*house.chance).await.expect("made");
    let bearer = secrecy::ExposeSecret::expose_secret(&bearer).to_owned();
    let presented = Presented::parse(&bearer).expect("well formed");
    let caller = people::authenticate(&mut db, &presented, None, house.now()).await.expect("opens");
    for by in [Authority::of_caller(&caller), Authority::operator()] {
        let refused = house.decide(&asked, Verdict::Approve, &by).await;
        assert!(matches!(refused, Err(Error::ForPeopleAlone(Scope::RightsApprove))), "{refused:?}");
    }

    // A token that was made for her asks in her name.
    let hers = NewToken {
        business_id: Some(house.shop),
        staff_id: Some(owner.staff_id),
        scopes: vec![Scope::RightsWrite],
        ..NewToken::bootstrap()
    };
    let (_, bearer) = people::create_token(&mut db, hers, &*house.clock, &*house.chance).await.expect("made");
    let bearer = secrecy::ExposeSecret::expose_secret(&bearer).to_owned();
    let presented = Presented::parse(&bearer).expect("well formed");
    let caller = people::authenticate(&mut db, &presented, None, house.now()).await.expect("opens");
    let by_token = house.ask("R-2", 1, &Authority::of_caller(&caller)).await;
    assert!(matches!(house.yes(&by_token, &owner).await, Err(Error::SecondPersonNeeded)));

    // Whoever changes the plan asks from then on, and whoever asked before still does not approve.
    let changed = house.change(&asked, "two", &Authority::of_staff(&two)).await.expect("changed");
    for asker in [&owner, &two] {
        assert!(matches!(house.yes(&changed, asker).await, Err(Error::SecondPersonNeeded)));
        assert_eq!(forge(&house, &changed, asker).await, "people_approval_votes_second_person");
    }

    // Nobody has seen that she holds the phone.
    let unseen = house.stranger(5, Some(house.shop), &[Role::Approver]).await;
    assert!(matches!(house.yes(&changed, &unseen).await, Err(Error::NotVerified)));
    // Not hers to say, and of another business it does not exist.
    let clerk = house.staff(6, &[Role::CounterStaff]).await;
    let refused = house.yes(&changed, &clerk).await;
    assert!(matches!(refused, Err(Error::People(people::Error::MissingScope(_)))), "{refused:?}");
    let foreign = house.stranger(7, Some(house.other), &[Role::Owner]).await;
    assert!(matches!(house.yes(&changed, &foreign).await, Err(Error::NoSuchApproval(_))));
    assert_eq!(forge(&house, &changed, &foreign).await, "people_approval_votes_by_staff");
}

#[tokio::test]
async fn atk_064_one_person_is_one_voice_under_two_accounts() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let two = house.staff(2, &[Role::Approver]).await;
    let asked = house.ask("R-1", 2, &owner).await;
    house.yes(&asked, &two).await.expect("counted");
    assert!(matches!(house.yes(&asked, &two).await, Err(Error::AlreadyVoted)));
    assert_eq!(forge(&house, &asked, &two).await, "people_approval_votes_once");

    // She leaves and comes back with the phone she had: the first yes ended, and a second account is no second person.
    let mut db = house.conn().await;
    remove_staff(&mut db, two.staff_id, &house.by(&owner)).await.expect("removed");
    assert_eq!(house.now_of(&asked).await.state, State::Pending);
    let back = house.staff(2, &[Role::Approver]).await;
    assert!(matches!(house.yes(&asked, &back).await, Err(Error::SamePerson)));
    assert_eq!(forge(&house, &asked, &back).await, "people_approval_votes_other_person");
}

#[tokio::test]
async fn a_yes_ends_with_its_giver_and_a_question_with_its_asker() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let by_owner = Authority::of_staff(&owner);
    let officer = house.staff(2, &[Role::PrivacyOfficer]).await;
    let (three, four) =
        (house.staff(3, &[Role::Approver]).await, house.staff(4, &[Role::Approver, Role::ReadOnly]).await);
    let asked = house.ask("R-1", 1, &Authority::of_staff(&officer)).await;
    let mut db = house.conn().await;

    assert_eq!(house.yes(&asked, &three).await.expect("counted").state, State::Approved);
    let back = take_back(&mut db, asked.approval_id, &house.by(&Authority::of_staff(&three))).await.expect("hers");
    assert_eq!((back.state, back.approved_at), (State::Pending, None));
    assert!(matches!(house.carry_out(&asked).await, Err(Error::NotApproved)));
    assert_eq!(house.yes(&asked, &three).await.expect("she may think again").state, State::Approved);

    remove_staff(&mut db, three.staff_id, &house.by(&by_owner)).await.expect("removed");
    assert_eq!(house.now_of(&asked).await.state, State::Pending);
    assert_eq!(house.yes(&asked, &four).await.expect("counted").state, State::Approved);
    withdraw_role(&mut db, four.staff_id, Role::ReadOnly, &house.by(&by_owner)).await.expect("withdrawn");
    assert_eq!(house.now_of(&asked).await.state, State::Approved, "not the role that counted");
    withdraw_role(&mut db, four.staff_id, Role::Approver, &house.by(&by_owner)).await.expect("withdrawn");
    assert_eq!(house.now_of(&asked).await.state, State::Pending);

    let stays = house.ask("R-2", 1, &by_owner).await;
    remove_staff(&mut db, officer.staff_id, &house.by(&by_owner)).await.expect("removed");
    assert_eq!(house.now_of(&asked).await.state, State::Withdrawn);
    assert_eq!(house.now_of(&stays).await.state, State::Pending, "somebody else's question");
    assert_eq!(
        house.told_of(asked.approval_id).await,
        [
            "people.approval_asked",
            "people.approval_given",
            "people.approval_taken_back",
            "people.approval_given",
            "people.approval_taken_back",
            "people.approval_given",
            "people.approval_taken_back",
            "people.approval_withdrawn",
        ]
    );
    let foreign = house.stranger(9, Some(house.other), &[Role::Owner]).await;
    let refused = withdraw(&mut db, stays.approval_id, &house.by(&Authority::of_staff(&foreign))).await;
    assert!(matches!(refused, Err(Error::NoSuchApproval(_))), "{refused:?}");
    let reader = house.staff(8, &[Role::Manager]).await;
    let refused = withdraw(&mut db, stays.approval_id, &house.by(&Authority::of_staff(&reader))).await;
    assert!(matches!(refused, Err(Error::People(people::Error::MissingScope(_)))), "{refused:?}");
    let gone = withdraw(&mut db, stays.approval_id, &house.by(&by_owner)).await.expect("her own question");
    assert_eq!(gone.state, State::Withdrawn);
}

#[tokio::test]
async fn what_has_run_out_is_neither_approved_nor_carried_out_whether_or_not_the_job_has_run() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let two = house.staff(2, &[Role::Approver]).await;
    let (one, other) = (house.ask("R-1", 1, &owner).await, house.ask("R-2", 1, &owner).await);
    house.yes(&one, &two).await.expect("counted");
    assert_eq!(house.waiting("people.end_approval").await.len(), 2, "each has a job at its end");
    let end = EndApproval { approval_id: one.approval_id };
    house.run(&end).await.expect("too early is no error");
    assert_eq!(house.now_of(&one).await.state, State::Approved);

    house.clock.forward(TimeDelta::days(2));
    assert_eq!(house.now_of(&one).await.state_at(house.now()), State::Expired);
    assert!(matches!(house.carry_out(&one).await, Err(Error::NotOpen(State::Expired))));
    assert!(matches!(house.yes(&other, &two).await, Err(Error::NotOpen(State::Expired))));
    assert!(matches!(house.change(&other, "two", &owner).await, Err(Error::NotOpen(State::Expired))));
    for _ in 0..2 {
        house.run(&end).await.expect("again is no error");
    }
    let ended = house.now_of(&one).await;
    assert_eq!((ended.state, ended.ended_at), (State::Expired, Some(house.now())));
    let told = house.told_of(one.approval_id).await;
    assert_eq!(told.iter().filter(|verb| *verb == "people.approval_expired").count(), 1, "{told:?}");
}

/// Two at once, many times over: whichever comes first, the end is one that an order of the two explains.
#[tokio::test]
async fn atk_065_of_all_that_race_one_wins() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let (two, three) = (house.staff(2, &[Role::Approver]).await, house.staff(3, &[Role::Approver]).await);
    for round in 0..8 {
        // Approve while editing.
        let asked = house.ask(&format!("edit-{round}"), 1, &owner).await;
        let (voted, changed) = tokio::join!(house.yes(&asked, &two), house.change(&asked, "two", &owner));
        changed.expect("an edit is always possible");
        assert!(matches!(voted, Ok(_) | Err(Error::PlanChanged)), "{voted:?}");
        let after = house.now_of(&asked).await;
        assert_eq!((after.state, after.version), (State::Pending, 2), "{voted:?}");

        // The same person twice at once.
        for needed in [1, 2] {
            let asked = house.ask(&format!("twice-{needed}-{round}"), needed, &owner).await;
            let both = tokio::join!(house.yes(&asked, &two), house.yes(&asked, &two));
            let (won, lost) = match both {
                (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
                both => panic!("{both:?}"),
            };
            assert!(matches!(lost, Error::AlreadyVoted), "{lost:?}");
            assert_eq!(won.state == State::Approved, needed == 1);
        }

        // Two people, the last of whom makes it approved, and nobody is lost between them.
        let asked = house.ask(&format!("both-{round}"), 2, &owner).await;
        let (one, other) = tokio::join!(house.yes(&asked, &two), house.yes(&asked, &three));
        let states = [one.expect("counted").state, other.expect("counted").state];
        assert!(states.contains(&State::Approved) && states.contains(&State::Pending), "{states:?}");

        // Approve against cancel.
        let asked = house.ask(&format!("cancel-{round}"), 1, &owner).await;
        let cancel = async {
            let mut db = house.conn().await;
            withdraw(&mut db, asked.approval_id, &house.by(&owner)).await
        };
        let (voted, cancelled) = tokio::join!(house.yes(&asked, &two), cancel);
        cancelled.expect("a cancel is always possible");
        assert!(matches!(voted, Ok(_) | Err(Error::NotOpen(State::Withdrawn))), "{voted:?}");
        assert_eq!(house.now_of(&asked).await.state, State::Withdrawn);
        assert!(matches!(house.yes(&asked, &three).await, Err(Error::NotOpen(State::Withdrawn))));

        // Carried out against edited, and carried out twice.
        let asked = house.ask(&format!("do-{round}"), 1, &owner).await;
        house.yes(&asked, &two).await.expect("counted");
        let (done, changed) = tokio::join!(house.carry_out(&asked), house.change(&asked, "two", &owner));
        assert_ne!(done.is_ok(), changed.is_ok(), "{done:?} {changed:?}");
        let asked = house.ask(&format!("done-{round}"), 1, &owner).await;
        house.yes(&asked, &two).await.expect("counted");
        let (one, other) = tokio::join!(house.carry_out(&asked), house.carry_out(&asked));
        assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");

        // Approve while the approver is put out.
        let leaver = house.staff(100 + round, &[Role::Approver]).await;
        let asked = house.ask(&format!("leave-{round}"), 1, &owner).await;
        let leave = async {
            let mut db = house.conn().await;
            remove_staff(&mut db, leaver.staff_id, &house.by(&owner)).await
        };
        let (voted, left) = tokio::join!(house.yes(&asked, &leaver), leave);
        left.expect("removed");
        assert!(matches!(voted, Ok(_) | Err(Error::People(people::Error::NoSuchStaff(_)))), "{voted:?}");
        assert_eq!(house.now_of(&asked).await.state, State::Pending, "no yes of hers is left");
        assert!(house.carry_out(&asked).await.is_err());
    }
}

/// Whoever writes to the database as the program does changes neither who had a hand in a decision nor what was decided.
#[tokio::test]
async fn atk_064_the_program_itself_cannot_unwrite_who_asked_nor_revive_a_yes() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let two = house.staff(2, &[Role::Approver]).await;
    let asked = house.ask("R-1", 1, &owner).await;
    house.yes(&asked, &two).await.expect("counted");
    take_back(&mut *house.conn().await, asked.approval_id, &house.by(&Authority::of_staff(&two))).await.expect("hers");
    for (statement, refused_by) in [
        ("update muneem.people_approval_contacts set asked = false", "42501"),
        ("delete from muneem.people_approval_contacts", "42501"),
        (
            "insert into muneem.people_approval_contacts (approval_id, channel, contact_index, party, asked)
             select approval_id, channel, '\\x00', party, asked from muneem.people_approval_contacts",
            "42501",
        ),
        ("delete from muneem.people_approval_votes", "42501"),
        ("update muneem.people_approvals set expires_at = expires_at + interval '1 day'", "42501"),
        ("update muneem.people_approval_votes set withdrawn_at = null", "MN030"),
        ("update muneem.people_approvals set state = 'approved', approved_at = now()", "MN030"),
    ] {
        let refused = sqlx::query(statement).execute(&house.pool).await.expect_err(statement);
        let code = refused.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some(refused_by), "{statement}: {refused}");
    }
    assert_eq!(house.now_of(&asked).await.state, State::Pending);
    // Nor is it carried out after its time, whatever the program thinks the time is.
    house.yes(&asked, &two).await.expect("once more");
    let late = "update muneem.people_approvals set state = 'carried_out', ended_at = expires_at";
    let refused = sqlx::query(late).execute(&house.pool).await.expect_err("too late");
    let constraint = refused.as_database_error().and_then(|error| error.constraint());
    assert_eq!(constraint, Some("people_approvals_in_time"));
}

#[tokio::test]
async fn atk_064_whoever_changes_her_phone_or_whose_index_turns_stays_the_one_who_asked() {
    let house = House::new().await;
    let owner = house.staff(1, &[Role::Owner]).await;
    let asked = house.ask("R-1", 1, &Authority::of_staff(&owner)).await;
    for number in [9_u8, 10] {
        sqlx::query("update muneem.people_staff set phone_index = $2 where staff_id = $1")
            .bind(owner.staff_id.0)
            .bind([number; 16].as_slice())
            .execute(&house.pool)
            .await
            .expect("another index");
    }
    // Accounts with each phone that she had since she asked.
    for number in [1, 9] {
        let another = house.staff(number, &[Role::Approver]).await;
        let refused = house.yes(&asked, &another).await;
        assert!(matches!(refused, Err(Error::SecondPersonNeeded)), "{number}: {refused:?}");
    }
    house.yes(&asked, &house.staff(2, &[Role::Approver]).await).await.expect("somebody else");
}

#[tokio::test]
async fn what_somebody_asks_for_while_she_is_put_out_does_not_outlive_her() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    for round in 0..6 {
        let leaver = house.staff(100 + round, &[Role::Manager]).await;
        let by = Authority::of_staff(&leaver);
        let leave = async {
            let mut db = house.conn().await;
            remove_staff(&mut db, leaver.staff_id, &house.by(&owner)).await
        };
        let subject = format!("leave-{round}");
        let (asked, left) = tokio::join!(house.try_ask(&subject, 1, &by), leave);
        left.expect("removed");
        match asked {
            Ok(asked) => assert_eq!(house.now_of(&asked).await.state, State::Withdrawn),
            Err(refused) => assert!(matches!(refused, Error::People(people::Error::NoSuchStaff(_))), "{refused:?}"),
        }
        let late = house.try_ask(&subject, 1, &by).await;
        assert!(matches!(late, Err(Error::People(people::Error::NoSuchStaff(_)))), "{late:?}");
    }
}

#[tokio::test]
async fn atk_063_a_summary_that_was_swapped_in_the_database_is_shown_to_nobody() {
    let house = House::new().await;
    let owner = Authority::of_staff(&house.staff(1, &[Role::Owner]).await);
    let two = house.staff(2, &[Role::Approver]).await;
    let by = Authority::of_staff(&two);
    let first = house.ask("R-1", 1, &owner).await;
    let summary_of = async |approval: &Approval| -> Vec<u8> {
        sqlx::query_scalar("select summary_sealed from muneem.people_approvals where approval_id = $1")
            .bind(approval.approval_id.0)
            .fetch_one(&house.db.pool())
            .await
            .expect("a summary")
    };
    let harmless = summary_of(&first).await;
    let asked = house.change(&first, "two", &owner).await.expect("changed");
    let right = summary_of(&asked).await;
    let other = summary_of(&house.ask("R-2", 1, &owner).await).await;
    let mut bent = right.clone();
    *bent.last_mut().expect("bytes") ^= 1;
    let mut db = house.conn().await;
    // As the program itself may write it, with the hash and the version of the plan that is to be carried out.
    let put = async |summary: &[u8]| {
        sqlx::query("update muneem.people_approvals set summary_sealed = $2 where approval_id = $1")
            .bind(asked.approval_id.0)
            .bind(summary)
            .execute(&house.pool)
            .await
            .expect("written");
    };
    for (what, summary) in [
        ("an older one of the same decision", &harmless),
        ("of another decision", &other),
        ("bent", &bent),
        ("none", &Vec::new()),
    ] {
        put(summary).await;
        let shown = open_summary(&mut db, &house.vault, asked.approval_id, &by).await;
        assert!(matches!(shown, Err(Error::Swapped(id)) if id == asked.approval_id), "{what}: {shown:?}");
        let yes = house.yes(&asked, &two).await;
        assert!(matches!(yes, Err(Error::Swapped(_))), "{what}: {yes:?}");
    }
    assert_eq!(house.now_of(&asked).await.state, State::Pending);
    assert_eq!(list_votes(&mut db, asked.approval_id, &owner).await.expect("listed"), []);
    put(&right).await;
    let shown = open_summary(&mut db, &house.vault, asked.approval_id, &by).await.expect("as it was");
    assert_eq!(shown, plan("two").summary);
    // Who finds it changed can still say no.
    put(&harmless).await;
    assert_eq!(house.decide(&asked, Verdict::Deny, &by).await.expect("counted").state, State::Denied);
}
