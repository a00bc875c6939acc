//! The way of a message to the phone, and what is told of it.

use chrono::TimeDelta;
use serde_json::json;

use super::{
    Inner,
    agenda::Due,
    callback::{self, Event},
    templates::{Step, Told},
    world::{Fate, Progress, World},
};

/// Messages that wait for one phone.
const WAITING: usize = 10_000;

/// A real duration on the stand-in's clock.
fn span(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::zero())
}

impl Inner {
    /// Sends an accepted message on its way, at its own pace.
    pub(super) fn deliver_later(&self, world: &mut World, sequence: u64) {
        let Some(message) = world.messages.get(&sequence) else { return };
        let to = match message.fate {
            Fate::Held | Fate::Fetching | Fate::Vanishes => return,
            Fate::Fails { after_sent: false, .. } => Progress::Failed,
            Fate::Fails { .. } | Fate::Usual | Fate::ReadOnly => Progress::Sent,
        };
        let at = self.now() + span(self.options.pace.sent);
        self.later(world, at, Due::Move { sequence, to });
    }

    /// Does what has come due.
    pub(super) fn happen(&self, due: Vec<Due>) {
        let mut told = Vec::new();
        {
            let mut world = self.world();
            for due in due {
                match due {
                    Due::Move { sequence, to } => self.get_on(&mut world, sequence, to),
                    Due::Template { id, step } => told.extend(self.template_step(&mut world, id, step)),
                    Due::Post(body) => self.post_again(body),
                    Due::Tell(events) => events.into_iter().for_each(|event| self.tell(event)),
                    Due::Release { sequence } => self.release(&mut world, sequence, Fate::Usual),
                    Due::Upgraded { number } => self.upgraded(&mut world, number),
                }
            }
        }
        self.tell_all(told);
    }

    /// Moves a message on, tells of it, and notes its next step.
    fn get_on(&self, world: &mut World, sequence: u64, to: Progress) {
        let Some(message) = world.messages.get(&sequence) else { return };
        let (fate, dies_at) = (message.fate, message.dies_at);
        if to == Progress::Delivered {
            let now = self.now();
            let phone = message.to.clone();
            if let Some(handset) = world.handsets.get(&phone)
                && handset.offline
            {
                let handset = world.handsets.entry(&phone);
                if handset.waiting.len() < WAITING {
                    handset.waiting.push(sequence);
                }
                return;
            }
            // Too late: it is dropped, and nobody is told.
            if now > dies_at {
                return;
            }
        }
        self.advance(world, sequence, to);
        let pace = self.options.pace;
        let quiet = world.messages.get(&sequence).and_then(|message| world.handsets.get(&message.to));
        let quiet = quiet.is_some_and(|handset| handset.receipts_off);
        let next = match (to, fate) {
            (Progress::Sent, Fate::Fails { .. }) => Some((pace.delivered, Progress::Failed)),
            (Progress::Sent, _) => Some((pace.delivered, Progress::Delivered)),
            (Progress::Delivered, _) => pace.read.filter(|_| !quiet).map(|read| (read, Progress::Read)),
            (Progress::Accepted | Progress::Read | Progress::Failed, _) => None,
        };
        if let Some((after, to)) = next {
            let at = self.now() + span(after);
            self.later(world, at, Due::Move { sequence, to });
        }
    }

    /// A phone is switched on: what waited for it arrives, unless its time is over.
    pub(super) fn arrive(&self, world: &mut World, sequence: u64) {
        let at = self.now();
        self.later(world, at, Due::Move { sequence, to: Progress::Delivered });
    }

    /// Moves a message on, and tells of it if it is its fate to be told of.
    pub(super) fn advance(&self, world: &mut World, sequence: u64, to: Progress) {
        let now = self.now();
        let Some(message) = world.advance(sequence, to, now) else { return };
        if message.fate == Fate::ReadOnly && to == Progress::Delivered {
            return;
        }
        let late = message.late_secs;
        let Some(message) = world.messages.get(&sequence) else { return };
        let event = callback::status(world, message, to, now);
        if late > 0 {
            self.later(world, now + TimeDelta::seconds(i64::from(late)), Due::Tell(vec![event]));
        } else {
            self.tell(event);
        }
    }

    fn upgraded(&self, world: &mut World, number: usize) {
        let Some(line) = world.numbers.get_mut(number) else { return };
        line.state.upgrading = false;
        line.number.messages_per_second = 1_000;
        let display = line.number.display_phone.digits();
        let value = json!({ "display_phone_number": display, "event": "THROUGHPUT_UPGRADE",
            "max_daily_conversations_per_business": "TIER_UNLIMITED" });
        let waba = line.number.waba_id.clone();
        let field = "phone_number_quality_update".to_owned();
        self.tell(Event { waba, number: Some(number), field, at: self.now(), value });
    }

    fn release(&self, world: &mut World, sequence: u64, fate: Fate) {
        if let Some(message) = world.messages.get_mut(&sequence) {
            message.fate = fate;
        }
        self.deliver_later(world, sequence);
    }

    fn template_step(&self, world: &mut World, id: u64, step: Step) -> Option<Told> {
        let now = self.now();
        let template = world.templates.get_mut(id)?;
        match step {
            Step::Review if template.status == "PENDING" => Some(template.set_status("APPROVED", None, None, now)),
            Step::Review => None,
            Step::Resume { pauses } => template.resume(pauses, now),
        }
    }

    /// What was held back for a verdict goes out.
    pub(super) fn let_go(&self, held: &[u64]) {
        let mut world = self.world();
        for sequence in held {
            self.release(&mut world, *sequence, Fate::Usual);
        }
    }

    /// What was held back for a verdict fails: the template is paused.
    pub(super) fn drop_held(&self, held: &[u64]) {
        let why = "The template was paused due to low quality";
        let mut world = self.world();
        for sequence in held {
            self.release(&mut world, *sequence, Fate::Fails { code: 132_015, why, after_sent: false });
        }
    }

    /// Tells an account's app of changes.
    pub(super) fn tell_all(&self, told: Vec<Told>) {
        for Told { waba, field, value } in told {
            let at = self.now();
            self.tell(Event { waba, number: None, field: field.to_owned(), at, value: json!(value) });
        }
    }
}
