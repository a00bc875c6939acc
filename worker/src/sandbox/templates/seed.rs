//! The templates of this process's library, in the account from the beginning: those that muneem ships, and the
//! installation's own.

use chrono::{DateTime, Utc};
use muneem_jobs::messaging::template::{Library, form_of};

use super::{New, Store};
use crate::outbound::whatsapp::{components_of, format_of};

/// A sample file that every app of the stand-in knows.
const SAMPLE: &str = "4::sample";

impl Store {
    /// Takes the templates of a library in for an account, as approved.
    pub(in super::super) fn seed(&mut self, library: &Library, waba: &str, now: DateTime<Utc>) {
        for (_, _, entry) in library.iter() {
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
    use muneem_jobs::messaging::template::library;

    use super::{super::check, *};

    #[test]
    fn an_installation_finds_its_own_templates_approved_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("festival/en");
        std::fs::create_dir_all(&folder).expect("made");
        let words = "name = \"festival_v1\"\nlanguage = \"en\"\ncategory = \"MARKETING\"\n\
                     body = \"Our festival week begins on Monday.\"\nreviewed_by = \"Sharma\"\nreviewed_on = 2026-11-23\n";
        std::fs::write(folder.join("whatsapp.toml"), words).expect("written");
        let own = Library::load(Some(dir.path())).unwrap_or_else(|problems| panic!("{problems}"));
        let mut store = Store::default();
        store.seed(&own, "102", DateTime::UNIX_EPOCH);
        let festival = store.find("102", "festival_v1", "en").expect("its own");
        assert_eq!((festival.status.as_str(), festival.category.as_str()), ("APPROVED", "MARKETING"));
        assert!(store.find("102", "tax_invoice_v1", "hi").is_some(), "and the shipped ones");
        assert_eq!(store.of_account("102").count(), own.iter().count());
    }

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
