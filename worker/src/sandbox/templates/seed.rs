//! Our own templates, in the account from the beginning.

use chrono::{DateTime, Utc};
use muneem_jobs::messaging::template::{form_of, library};

use super::{New, Store};
use crate::outbound::whatsapp::{components_of, format_of};

/// A sample file that every app of the stand-in knows.
const SAMPLE: &str = "4::sample";

impl Store {
    /// Takes our own templates in for an account, as approved.
    pub(in super::super) fn seed(&mut self, waba: &str, now: DateTime<Utc>) {
        for (_, _, entry) in library().iter() {
            let form = form_of(&entry.template);
            let new = New {
                waba: waba.to_owned(),
                components: components_of(&form, Some(SAMPLE)),
                named: format_of(&form).is_some(),
                name: form.name,
                language: form.language,
                category: form.category,
                ttl: form.ttl_secs,
            };
            // Two that say the same name and language are one.
            if let Ok(id) = self.make(new, now)
                && let Some(made) = self.get_mut(id)
            {
                "APPROVED".clone_into(&mut made.status);
                "GREEN".clone_into(&mut made.quality);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check, *};

    #[test]
    fn our_own_templates_would_be_taken_as_they_are() {
        assert!(library().iter().count() > 10);
        for (folder, _, entry) in library().iter() {
            let form = form_of(&entry.template);
            let components = components_of(&form, Some(SAMPLE));
            let pdf = |_: &str| Some("application/pdf".to_owned());
            let taken = check::components(&components, &form.category, form.named, &pdf)
                .and_then(|()| check::ttl(form.ttl_secs, &form.category));
            if let Err(refused) = taken {
                panic!("{folder} {}: {} {}", form.language, refused.code, refused.details);
            }
            assert!(!check::sells(&components), "{folder} {} would be taken for marketing", form.language);
        }
    }
}
