use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::{
    token::MailToken,
    words::{self, Frame, WordsError},
};
use crate::{
    messaging::Language,
    outbound::{Attachment, BadMail, DkimKey, Email, Mail, MailSender, breaks_a_header},
};

/// Letters of a business's name that are shown as the sender.
const LONGEST_NAME: usize = 80;

/// Whom the mail of a business comes from. [`super::identity_of`] finds it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name beside the address, and above the words.
    pub name: String,
    /// Its own address, if it has proved one; `None`: the installation's.
    pub from: Option<Email>,
    /// Where answers go; `None`: nobody reads them.
    pub reply_to: Option<Email>,
    /// What its mail is signed with; `None`: the installation's key, if its domain is the installation's.
    pub dkim: Option<Arc<DkimKey>>,
}

/// What one mail is to say.
pub struct Draft<'a, P> {
    /// Of the mail: a [`crate::messaging::MailId`] or a message's id. It does not leave the house.
    pub id: Uuid,
    /// What stands in its Message-ID and return path; made by [`super::issue_token`] in the transaction that records the
    /// attempt. `None`: nothing that comes back of this mail will be known.
    pub token: Option<&'a MailToken>,
    /// Whom it is for.
    pub to: Email,
    /// Folder of its words in `templates/messaging/`.
    pub words: &'a str,
    /// What they are filled with: an object whose fields the words name.
    pub params: &'a P,
    /// Her language; English where the words do not speak it.
    pub language: Language,
    /// Files that go with it.
    pub attachments: Vec<Attachment>,
    /// The page by which she leaves with one click; only for what sells, which the class of the message says. A POST with the body
    /// `List-Unsubscribe=One-Click` to it must be enough (RFC 8058), without a cookie or a further question.
    pub unsubscribe: Option<&'a str>,
}

/// A mail that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Its words could not be filled.
    #[error("compose a mail")]
    Words(#[from] WordsError),
    /// Its parts cannot be sent.
    #[error("compose a mail")]
    Mail(#[from] BadMail),
}

/// Writes one mail: fills its words in text and HTML, names its sender, and gives it its files and its way to leave.
/// Nothing is sent; hand it to [`crate::outbound::Mailer::send`] after the attempt was committed.
///
/// # Errors
/// A parameter is missing, a link is none, or a part cannot be sent. The same draft will fail again.
pub fn compose<P: Serialize>(identity: &Identity, draft: Draft<'_, P>) -> Result<Mail, ComposeError> {
    let name = shown_name(&identity.name);
    let frame = Frame {
        sender: &name,
        reply_to: identity.reply_to.as_ref().map(Email::expose),
        unsubscribe: draft.unsubscribe,
    };
    let filled = words::fill(draft.words, draft.language, draft.params, &frame)?;
    let mut mail = Mail::new(draft.id, draft.to, &filled.subject, &filled.text)?
        .with_sender(MailSender { name: name.clone(), address: identity.from.clone() })?
        .in_language(filled.language.as_str());
    if let Some(token) = draft.token {
        mail = mail.with_reference(&token.expose())?;
    }
    if let Some(html) = &filled.html {
        mail = mail.with_html(html)?;
    }
    if let Some(reply_to) = &identity.reply_to {
        mail = mail.with_reply_to(reply_to.clone());
    }
    for attachment in draft.attachments {
        mail = mail.with_attachment(attachment)?;
    }
    if let Some(url) = draft.unsubscribe {
        mail = mail.with_unsubscribe(url)?;
    }
    if let Some(key) = &identity.dkim {
        mail = mail.with_dkim(Arc::clone(key));
    }
    Ok(mail)
}

/// One line, not endless, and no address: a name that looks like one would hide who really sends.
fn shown_name(name: &str) -> String {
    let line = name.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|letter| !breaks_a_header(*letter) && *letter != '@').take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHARMA: &str = "Sharma Mobiles";

    fn identity() -> Identity {
        Identity {
            name: SHARMA.to_owned(),
            from: None,
            reply_to: Some(Email::parse("owner@sharma.example").expect("an address")),
            dkim: None,
        }
    }

    fn draft<'a>(words: &'a str, language: Language, params: &'a serde_json::Value) -> Draft<'a, serde_json::Value> {
        Draft {
            id: Uuid::nil(),
            token: Some(const { &MailToken::of([7; 16]) }),
            to: Email::parse("asha@example.in").expect("an address"),
            words,
            params,
            language,
            attachments: Vec::new(),
            unsubscribe: None,
        }
    }

    /// One sample for each set of words.
    fn sample(words: &str, language: Language) -> serde_json::Value {
        let hindi = language == Language::Hi;
        match words {
            "tax_invoice" => json!({ "customer_name": if hindi { "आशा वर्मा" } else { "Asha Verma" },
                "business_name": SHARMA, "invoice_number": "INV-1042", "amount": "₹1,180.00" }),
            "sign_in_code" => json!({ "name": "Asha", "business_name": SHARMA, "code": "012345" }),
            "sign_in_warning" => json!({ "name": "Asha", "business_name": SHARMA,
                "event": if hindi { "नए ब्राउज़र से साइन इन हुआ" } else { "Somebody signed in from a new browser" },
                "at": "23 November 2026, 12:00" }),
            "one_time_code" => json!({ "business_name": SHARMA, "code": "012345", "minutes": "5" }),
            "mail_identity" => {
                json!({ "business_name": SHARMA, "code": "abcd-efgh-ijkl", "until": "24-11-2026 12:00 IST" })
            }
            // What has a template is filled with its own examples.
            other => {
                let template = crate::messaging::template::library().find(other, language);
                let template = template.unwrap_or_else(|| panic!("give the words `{other}` a sample"));
                template.parameters.iter().map(|one| (one.name.clone(), json!(one.example))).collect()
            }
        }
    }

    #[test]
    fn every_set_of_words_reads_well_in_text_and_html() {
        for (words, languages) in words::all() {
            assert!(languages.contains(&Language::En), "{words} has no English words");
            for language in languages {
                let sample = sample(&words, language);
                let mail = compose(&identity(), draft(&words, language, &sample));
                let mail = mail.unwrap_or_else(|error| panic!("{words}: {error:?}"));
                assert_eq!(mail.language(), Some(language.as_str()), "{words}");
                let html = mail.html().unwrap_or_else(|| panic!("{words} in {} has no HTML", language.english_name()));
                for remote in ["<img", "src=", "http://", "@import", "url(", "<script", "<link"] {
                    assert!(!html.contains(remote), "{words}: {remote} asks somebody else for something");
                }
                let seen = seen(html);
                for (parameter, value) in sample.as_object().expect("an object") {
                    let value = value.as_str().expect("text");
                    let told = (mail.text().contains(value), seen.contains(value));
                    assert_eq!(told.0, told.1, "{words}: text and HTML do not both say {parameter}: {seen}");
                    assert!(told.0 || mail.subject().contains(value), "{words}: says nowhere {parameter}");
                }
                let mark = |one: char| one.is_ascii_punctuation() || "।“”".contains(one);
                for word in mail.text().split_whitespace().map(|word| word.trim_matches(mark)) {
                    assert!(seen.contains(word), "{words}: HTML leaves `{word}` out: {seen}");
                }
                for leave in ["nsubscribe", "सदस्यता"] {
                    assert!(!(html.contains(leave) || mail.text().contains(leave)), "{words}: nobody can leave it");
                }
                let name = format!("{words}.{}", language.as_str());
                insta::assert_snapshot!(format!("{name}.txt"), format!("{}\n\n{}", mail.subject(), mail.text()));
                if let Some(folder) = std::env::var_os("MUNEEM_MAIL_PAGES") {
                    let file = std::path::Path::new(&folder).join(format!("{name}.html"));
                    std::fs::write(file, html).expect("a page to look at");
                }
            }
        }
    }

    /// What a reader sees of a page: no tags, nothing escaped, one space between words.
    fn seen(html: &str) -> String {
        let body = html.split_once("<body").expect("a body").1;
        let text: String = body.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect();
        let text = text.replace("&#x3D;", "=").replace("&#x27;", "'").replace("&quot;", "\"");
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_law_asks_for_says_who_writes_and_why_in_text_and_html() {
        let acts = [
            (Language::En, "Digital Personal Data Protection Act, 2023", "Why you get this mail"),
            (Language::Hi, "डिजिटल व्यक्तिगत डेटा संरक्षण अधिनियम, 2023", "यह मेल आपको क्यों मिला"),
        ];
        let mut statutory = Vec::new();
        for (words, _) in words::all() {
            for (language, act, why) in acts {
                let template = crate::messaging::template::library().find(&words, language);
                if template.is_none_or(|template| template.class() != crate::messaging::MessageClass::Statutory) {
                    continue;
                }
                let sample = sample(&words, language);
                let mail = compose(&identity(), draft(&words, language, &sample)).expect("a mail");
                let business = sample["business_name"].as_str().expect("a name");
                for part in [mail.text(), &seen(mail.html().expect("HTML"))] {
                    let at = part.find(why).unwrap_or_else(|| panic!("{words}: says not why"));
                    assert!(part[at..].contains(act) && part[at..].contains(business), "{words}: {part}");
                }
                statutory.push(words.clone());
            }
        }
        statutory.dedup();
        assert!(statutory.contains(&"breach_notice".to_owned()) && statutory.len() >= 5, "{statutory:?}");
    }

    #[test]
    fn atk_029_a_parameter_that_nobody_gave_stops_the_mail() {
        for missing in ["customer_name", "business_name", "invoice_number", "amount"] {
            let mut params = sample("tax_invoice", Language::En);
            params.as_object_mut().expect("an object").remove(missing);
            let error = compose(&identity(), draft("tax_invoice", Language::En, &params)).expect_err(missing);
            let ComposeError::Words(WordsError::Missing { parameter, .. }) = &error else { panic!("{error:?}") };
            assert_eq!(parameter, missing);
        }
        let params = json!({});
        let error = compose(&identity(), draft("no_such_words", Language::En, &params)).expect_err("no words");
        assert!(matches!(error, ComposeError::Words(WordsError::Unknown(_))), "{error:?}");
        let params = json!(["a", "list"]);
        assert!(compose(&identity(), draft("tax_invoice", Language::En, &params)).is_err());
    }

    #[test]
    fn atk_031_a_name_is_text_in_every_part_of_a_mail() {
        let mut params = sample("tax_invoice", Language::En);
        params["customer_name"] = json!("<script>alert('x')</script>\" onload=\"x");
        params["invoice_number"] = json!("INV\r\nBcc: everybody@example.in\u{202e}\u{0}");
        params["amount"] = json!("{{customer_name}} {{{body}}} & <b>");
        let identity = Identity { name: "<b>Sharma</b>\r\nX: y ceo@bank.example".to_owned(), ..identity() };
        let mail = compose(&identity, draft("tax_invoice", Language::En, &params)).expect("a mail");
        let html = mail.html().expect("HTML");
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("\" onload"), "{html}");
        assert!(html.contains("&lt;script&gt;") && html.contains("{{{body}}} &amp; &lt;b&gt;"), "{html}");
        assert!(mail.text().contains("<script>alert('x')</script>"), "plain text says what was written");
        let subject = mail.subject();
        assert!(subject.starts_with("Your invoice INV Bcc: everybody@example.in from"), "{subject:?}");
        assert!(!subject.chars().any(breaks_a_header), "{subject:?}");
        let name = &mail.from().expect("a sender").name;
        assert_eq!(name, "<b>Sharma</b> X: y ceobank.example");
    }

    #[test]
    fn a_link_that_is_no_page_stops_the_mail() {
        for url in ["javascript:alert(1)", "http://evil.example", "data:text/html,x", "https://a b", ""] {
            let mut params = sample("tax_invoice", Language::En);
            params["pay_url"] = json!(url);
            let error = compose(&identity(), draft("tax_invoice", Language::En, &params)).expect_err(url);
            assert!(matches!(error, ComposeError::Words(WordsError::BadLink { .. })), "{error:?}");
        }
    }

    #[test]
    fn who_may_leave_is_told_how_and_nobody_else_is() {
        let params = sample("tax_invoice", Language::En);
        let url = "https://muneem.example/r/leave/abc?a=1&b=2";
        let plain = compose(&identity(), draft("tax_invoice", Language::En, &params)).expect("a mail");
        assert!(!plain.text().contains("Unsubscribe") && plain.unsubscribe().is_none());
        let draft = Draft { unsubscribe: Some(url), ..draft("tax_invoice", Language::En, &params) };
        let leaving = compose(&identity(), draft).expect("a mail");
        assert!(leaving.text().contains(url) && leaving.unsubscribe() == Some(url));
        let html = leaving.html().expect("HTML");
        assert!(html.contains("href=\"https://muneem.example/r/leave/abc?a&#x3D;1&amp;b&#x3D;2\""), "{html}");
        let nobody = Identity { reply_to: None, ..identity() };
        let params = sample("sign_in_code", Language::En);
        let silent = compose(&nobody, super::tests::draft("sign_in_code", Language::En, &params)).expect("a mail");
        assert!(silent.text().contains("reads no answers"), "{}", silent.text());
    }

    #[test]
    fn a_long_subject_is_cut_and_a_mail_still_goes_out() {
        let mut params = sample("tax_invoice", Language::En);
        params["business_name"] = json!("श".repeat(400));
        let mail = compose(&identity(), draft("tax_invoice", Language::En, &params)).expect("a mail");
        assert!(mail.subject().chars().count() <= 200 && mail.subject().ends_with('…'));
    }
}
