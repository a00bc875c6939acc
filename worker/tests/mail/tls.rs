//! The line itself: who is believed to be the server, what a broken line means, and how often one is used.

use std::{sync::Arc, time::Duration};

use muneem::outbound::{
    clock::SystemClock,
    mail::{Settings, Smtp, Tls},
};
use muneem_jobs::outbound::{MailOutcome, Mailer};

use crate::{
    authority::Authority,
    mail,
    server::{Act, Server, Step},
    settings,
};

/// Of a server whose certificate is for `localhost`.
fn to(server: &Server, tls: Tls, roots: Option<Vec<u8>>) -> Settings {
    Settings { host: "localhost".to_owned(), port: server.address.port(), tls, tls_roots: roots, ..settings() }
}

fn smtp(settings: Settings) -> Smtp {
    Smtp::new(settings, Arc::new(SystemClock)).expect("settings")
}

fn shown(outcome: &MailOutcome) -> String {
    match outcome {
        MailOutcome::Accepted => "Accepted".to_owned(),
        MailOutcome::Refused(failure) => format!("Refused: {failure}"),
        MailOutcome::NotSent(failure) => format!("NotSent: {failure}"),
        MailOutcome::Unknown(failure) => format!("Unknown: {failure}"),
    }
}

#[tokio::test]
async fn mail_goes_under_tls_to_the_server_that_was_named_and_to_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = ours.issue("localhost", false);
    for tls in [Tls::Implicit, Tls::Starttls] {
        let server = Server::open(tls, Some(good.server_config())).await;
        let signed_in = Settings {
            user: Some("till".to_owned()),
            password: Some("secret".to_owned().into()),
            ..to(&server, tls, Some(ours.pem()))
        };
        assert_eq!(smtp(signed_in).send(&mail(1)).await, MailOutcome::Accepted, "{tls:?}");
        assert_eq!(server.taken().len(), 1);

        // The same server, by people who have no reason to believe it; and servers that are somebody else.
        let unknown = smtp(to(&server, tls, Some(theirs.pem()))).send(&mail(2)).await;
        let machines = smtp(to(&server, tls, None)).send(&mail(2)).await;
        assert_eq!(server.taken().len(), 1, "{tls:?}");
        let mut refused = vec![("an unknown authority", unknown), ("this machine's authorities", machines)];
        for (what, leaf) in
            [("another name", ours.issue("mx.example.in", false)), ("run out", ours.issue("localhost", true))]
        {
            let other = Server::open(tls, Some(leaf.server_config())).await;
            refused.push((what, smtp(to(&other, tls, Some(ours.pem()))).send(&mail(2)).await));
            assert!(other.taken().is_empty(), "{tls:?} {what}");
        }
        for (what, outcome) in refused {
            assert!(matches!(outcome, MailOutcome::NotSent(_)), "{tls:?} {what}: {outcome:?}");
        }
    }
}

#[test]
fn roots_that_are_none_stop_the_start() {
    let roots = Some(b"no certificate".to_vec());
    let refused = Smtp::new(Settings { tls: Tls::Implicit, tls_roots: roots, ..settings() }, Arc::new(SystemClock));
    assert!(refused.is_err_and(|error| error.to_string().contains("tls_roots_file")));
}

#[tokio::test]
async fn wherever_the_server_hangs_up_or_falls_silent_it_is_known_what_may_have_been_taken() {
    let ours = Authority::new();
    let config = ours.issue("localhost", false).server_config();
    let steps = [
        (Step::Greeting, false),
        (Step::Hello, false),
        (Step::Starttls, false),
        (Step::Auth, false),
        (Step::Mail, false),
        (Step::Rcpt, false),
        (Step::Data, false),
        (Step::End, true),
    ];
    for act in [Act::HangUp, Act::FallSilent] {
        for (step, in_doubt) in steps {
            let server = Server::open(Tls::Starttls, Some(config.clone())).await;
            server.plan(step, act);
            let settings = Settings {
                user: Some("till".to_owned()),
                password: Some("secret".to_owned().into()),
                command_timeout: Duration::from_millis(400),
                timeout: Duration::from_millis(if act == Act::FallSilent { 1_200 } else { 10_000 }),
                ..to(&server, Tls::Starttls, Some(ours.pem()))
            };
            let outcome = smtp(settings).send(&mail(1)).await;
            let right = if in_doubt {
                matches!(outcome, MailOutcome::Unknown(_))
            } else {
                matches!(outcome, MailOutcome::NotSent(_))
            };
            assert!(right, "{act:?} at {step:?}: {}", shown(&outcome));
            assert_eq!(server.taken().len(), usize::from(in_doubt), "{act:?} at {step:?}");
        }
    }
}

#[tokio::test]
async fn a_line_is_used_again_and_a_dead_one_is_replaced_before_anything_is_said() {
    let server = Server::open(Tls::None, None).await;
    let smtp = smtp(Settings { host: "127.0.0.1".to_owned(), ..to(&server, Tls::None, None) });
    for id in 1..=3 {
        assert_eq!(smtp.send(&mail(id)).await, MailOutcome::Accepted);
    }
    assert_eq!((server.lines(), server.taken().len()), (1, 3));
    // Hung up while it lay idle, and told that it is time to go.
    for (act, lines) in [(Act::HangUp, 2), (Act::Say("421 4.3.2 closing"), 3)] {
        server.plan(Step::Mail, act);
        assert_eq!(smtp.send(&mail(4)).await, MailOutcome::Accepted, "{act:?}");
        assert_eq!(server.lines(), lines, "{act:?}");
    }
    assert_eq!(server.taken().len(), 5, "and each mail once");
}

#[tokio::test]
async fn a_refused_recipient_leaves_the_line_fit_for_the_next_mail() {
    let post = crate::Post::open().await;
    let smtp = smtp(post.settings());
    post.script("rcpt", Some("550 5.1.1 no such mailbox")).await;
    assert_eq!(shown(&smtp.send(&mail(1)).await), "Refused: RCPT refused (550 5.1.1)");
    assert_eq!(smtp.send(&mail(2)).await, MailOutcome::Accepted);
    // Told to sign in: that is no word about this mail.
    post.script("mail", Some("530 5.7.0 sign in first")).await;
    assert_eq!(shown(&smtp.send(&mail(3)).await), "NotSent: MAIL refused (530 5.7.0)");
    assert_eq!(post.mails().await.len(), 1);
}
