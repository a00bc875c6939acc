//! The way of a message to the phone, and what is told of it.

use chrono::TimeDelta;
use serde_json::json;

use super::{
    Inner,
    agenda::Due,
    callback::{self, Event},
    templates::{Step, Told},
    world::{Fate, Message, Progress, World},
};

/// A real duration on the stand-in's clock.
fn span(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::zero())
}

impl Inner {
    /// Sends an accepted message on its way, at its own pace.
    pub(super) fn deliver_later(&self, world: &mut World, message: &Message) {
        let to = match message.fate {
            Fate::Held | Fate::Vanishes => return,
            Fate::Fails { .. } => Progress::Failed,
            Fate::Usual | Fate::ReadOnly => Progress::Sent,
        };
        let at = self.now() + span(self.options.pace.sent);
        self.later(world, at, Due::Move { sequence: message.sequence, to });
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
                    Due::Upgraded { .. } => {}
                }
            }
        }
        self.tell_all(told);
    }

    /// Moves a message on, tells of it, and notes its next step.
    fn get_on(&self, world: &mut World, sequence: u64, to: Progress) {
        self.advance(world, sequence, to);
        let pace = self.options.pace;
        let next = match to {
            Progress::Sent => Some((pace.delivered, Progress::Delivered)),
            Progress::Delivered => pace.read.map(|read| (read, Progress::Read)),
            Progress::Accepted | Progress::Read | Progress::Failed => None,
        };
        if let Some((after, to)) = next {
            let at = self.now() + span(after);
            self.later(world, at, Due::Move { sequence, to });
        }
    }

    /// Moves a message on, and tells of it if it is its fate to be told of.
    pub(super) fn advance(&self, world: &mut World, sequence: u64, to: Progress) {
        let now = self.now();
        let Some(message) = world.advance(sequence, to, now) else { return };
        if message.fate == Fate::ReadOnly && to == Progress::Delivered {
            return;
        }
        let message = message.clone();
        let event = callback::status(world, &message, to, now);
        self.tell(event);
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
            let Some(message) = world.messages.get_mut(sequence) else { continue };
            message.fate = Fate::Usual;
            let message = message.clone();
            self.deliver_later(&mut world, &message);
        }
    }

    /// What was held back for a verdict fails: the template is paused.
    pub(super) fn drop_held(&self, held: &[u64]) {
        let mut world = self.world();
        for sequence in held {
            let Some(message) = world.messages.get_mut(sequence) else { continue };
            message.fate = Fate::Fails { code: 132_015 };
            let message = message.clone();
            self.deliver_later(&mut world, &message);
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
