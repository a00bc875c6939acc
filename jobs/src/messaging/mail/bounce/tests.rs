use proptest::prelude::*;

use super::*;

/// Of every sample below.
const TOKEN: &str = "gaytemzugu3doobzmfrggzdfmy";

fn one(raw: &str) -> Report {
    match read(crlf(raw).as_bytes()) {
        Read::Reports(mut reports) if reports.len() == 1 => reports.remove(0),
        other => panic!("one report: {other:?}"),
    }
}

fn crlf(raw: &str) -> String {
    raw.replace('\n', "\r\n")
}

fn email(text: &str) -> Email {
    Email::parse(text).expect("an address")
}

fn tokens() -> Vec<MailToken> {
    vec![MailToken::parse(TOKEN).expect("a token")]
}

/// As Postfix writes it.
fn postfix(action: &str, status: &str, diagnostic: &str) -> String {
    format!(
        "Return-Path: <>
From: MAILER-DAEMON@mx.example.in (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: bounces@muneem.example
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=\"B\"
Message-Id: <20261123.1@mx.example.in>

--B
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--B
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.in
X-Postfix-Queue-ID: 4F1
Arrival-Date: Mon, 23 Nov 2026 12:00:00 +0000

Final-Recipient: rfc822; asha@example.in
Original-Recipient: rfc822;asha@example.in
Action: {action}
Status: {status}
Remote-MTA: dns; mx.example.in
Diagnostic-Code: {diagnostic}

--B
Content-Description: Undelivered Message
Content-Type: message/rfc822

Return-Path: <bounces@muneem.example>
From: Sharma Mobiles <bills@sharma.example>
To: asha@example.in
Message-ID: <{TOKEN}@sharma.example>
Subject: Your invoice

words
--B--
"
    )
}

#[test]
fn a_delivery_report_says_what_became_of_which_mail() {
    for (action, status, diagnostic, kind, permanent, told) in [
        ("failed", "5.1.1", "smtp; 550 5.1.1 <asha@example.in>: unknown", Kind::Failed, true, Some("5.1.1")),
        ("failed", "5.0.0", "smtp; 550 5.2.1 disabled", Kind::Failed, true, Some("5.2.1")),
        ("failed", "5.0.0", "smtp; 450 4.2.1 later", Kind::Failed, true, Some("5.0.0")),
        ("failed", "4.4.7", "smtp; 421 4.4.7 gave up", Kind::Failed, false, Some("4.4.7")),
        ("Delayed", "4.4.1", "X-Postfix; connection timed out", Kind::Delayed, false, Some("4.4.1")),
        ("delivered", "2.0.0", "smtp; 250 ok", Kind::Delivered, false, Some("2.0.0")),
        ("relayed", "2.0.0", "smtp; 250 ok", Kind::Relayed, false, Some("2.0.0")),
        ("expanded", "2.0.0", "smtp; 250 ok", Kind::Relayed, false, Some("2.0.0")),
        ("failed", "nonsense", "smtp; 552 mailbox full", Kind::Failed, true, None),
        ("failed", "nonsense", "x-unix; no idea", Kind::Failed, false, None),
    ] {
        let report = one(&postfix(action, status, diagnostic));
        assert_eq!(
            (report.kind, report.permanent, report.status.as_deref()),
            (kind, permanent, told),
            "{action} {status}"
        );
        assert_eq!(report.tokens, tokens());
        assert_eq!(report.recipients, [email("asha@example.in"), email("asha@example.in")]);
    }
    assert_eq!(one(&postfix("failed", "5.1.1", "x")).fault(), Fault::Address);
    assert_eq!(one(&postfix("failed", "5.7.1", "x")).fault(), Fault::Policy);
    assert_eq!(read(crlf(&postfix("vanished", "5.1.1", "x")).as_bytes()), Read::NoReport);
}

#[test]
fn a_report_with_headers_alone_or_nothing_returned_is_known_by_what_it_has() {
    let headers = postfix("failed", "5.1.1", "x").replace("message/rfc822", "text/rfc822-headers");
    assert_eq!(one(&headers).tokens, tokens());
    let base64 = postfix("failed", "5.1.1", "x").replace(
        "Content-Type: message/rfc822\n\nReturn-Path",
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nReturn-Path",
    );
    assert_eq!(one(&base64).tokens, tokens());
    // Nothing came back but the address that it came back to.
    let nothing = postfix("failed", "5.1.1", "x")
        .replace(&format!("<{TOKEN}@sharma.example>"), "<lost@sharma.example>")
        .replace("To: bounces@muneem.example", &format!("To: bounces+{TOKEN}@muneem.example"));
    assert_eq!(one(&nothing).tokens, tokens());
    let envelope = postfix("failed", "5.1.1", "x")
        .replace(&format!("<{TOKEN}@sharma.example>"), "<lost@sharma.example>")
        .replace("Reporting-MTA:", &format!("Original-Envelope-Id: {}\nReporting-MTA:", TOKEN.to_uppercase()));
    assert_eq!(one(&envelope).tokens, tokens());
    let none = postfix("failed", "5.1.1", "x").replace(TOKEN, "lost");
    assert_eq!(one(&none).tokens, []);
}

#[test]
fn each_recipient_of_a_report_is_one_of_its_own() {
    let two = postfix("failed", "5.1.1", "x").replace(
        "\n--B\nContent-Description: Undelivered",
        "\nFinal-Recipient: utf-8; b+2Btill@example.in\nAction: delivered\nStatus: 2.1.5\n\n--B\nContent-Description: Undelivered",
    );
    let Read::Reports(reports) = read(crlf(&two).as_bytes()) else { panic!("reports") };
    let told: Vec<_> = reports.iter().map(|report| (report.kind, report.recipients.last().cloned())).collect();
    assert_eq!(
        told,
        [(Kind::Failed, Some(email("asha@example.in"))), (Kind::Delivered, Some(email("b+till@example.in")))]
    );
}

/// As RFC 5965 appendix B has it.
fn complaint(kind: &str, more: &str) -> String {
    format!(
        "From: <abusedesk@example.in>
To: <bounces@muneem.example>
Subject: FW: Your invoice
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=\"B\"

--B
Content-Type: text/plain; charset=\"US-ASCII\"

This is an email abuse report.

--B
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1
{more}
--B
Content-Type: message/rfc822

From: <bills@sharma.example>
To: <redacted>
Message-ID: <{TOKEN}@sharma.example>
Subject: Your invoice

words
--B--
"
    )
}

#[test]
fn a_complaint_is_one_unless_it_praises() {
    for kind in ["abuse", "fraud", "opt-out", "other", "Abuse"] {
        let report = one(&complaint(kind, "Original-Rcpt-To: <asha@example.in>"));
        assert_eq!((report.kind, report.permanent), (Kind::Complaint, false), "{kind}");
        assert_eq!((report.tokens, report.recipients), (tokens(), vec![email("asha@example.in")]));
    }
    assert_eq!(one(&complaint("abuse", "Reported-Domain: sharma.example")).recipients, []);
    for kind in ["not-spam", "auth-failure"] {
        assert_eq!(read(crlf(&complaint(kind, "X: y")).as_bytes()), Read::NoReport, "{kind}");
    }
}

#[test]
fn letters_of_servers_are_understood_where_they_are_plain() {
    let qmail = format!(
        "Return-Path: <>
From: MAILER-DAEMON@mx.example.in
To: bounces@muneem.example
Subject: failure notice

Hi. This is the qmail-send program at mx.example.in.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<asha@example.in>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.

Return-Path: <bounces@muneem.example>
Message-ID: <{TOKEN}@sharma.example>
Subject: 4.4.7

<b@example.in>:
"
    );
    let report = one(&qmail);
    assert_eq!((report.kind, report.permanent, report.status.as_deref()), (Kind::Failed, true, Some("5.1.1")));
    assert_eq!((report.tokens, report.recipients), (tokens(), vec![email("asha@example.in")]));

    let exchange = format!(
        "From: postmaster@example.in
To: bounces@muneem.example
Subject: Undeliverable: Your invoice

Delivery has failed to these recipients or groups:

asha@example.in (asha@example.in)
The email address you entered couldn't be found.

Remote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found'

Original message headers:

Message-ID: <{TOKEN}@sharma.example>
"
    );
    let report = one(&exchange);
    assert_eq!((report.kind, report.permanent, report.status.as_deref()), (Kind::Failed, true, Some("5.1.10")));
    assert_eq!((report.tokens, report.recipients), (tokens(), vec![email("asha@example.in")]));
    let delayed = exchange.replace("Undeliverable: Your invoice", "Delivery delayed: Your invoice");
    assert_eq!((one(&delayed).kind, one(&delayed).permanent), (Kind::Delayed, false));
}

#[test]
fn answers_are_no_bounces() {
    let vacation = format!(
        "Return-Path: <>
From: Asha Verma <asha@example.in>
To: bounces+{TOKEN}@muneem.example
Subject: Undeliverable? No, on holiday
Auto-Submitted: auto-replied
In-Reply-To: <{TOKEN}@sharma.example>

I am away. 5.1.1 is my room. <asha@example.in>: see you.
"
    );
    assert_eq!(read(crlf(&vacation).as_bytes()), Read::AutoReply);
    let receipt = "From: asha@example.in
Content-Type: multipart/report; report-type=disposition-notification; boundary=B

--B
Content-Type: message/disposition-notification

Disposition: manual-action/MDN-sent-manually; displayed

--B--
";
    assert_eq!(read(crlf(receipt).as_bytes()), Read::AutoReply);
    let person = "From: asha@example.in\nSubject: Undelivered?\n\nWhere is my phone? 550 5.1.1\n";
    assert_eq!(read(crlf(person).as_bytes()), Read::NoReport);
    let daemon = "From: postmaster@example.in\nSubject: Your quota\n\nasha@example.in 5.2.2\n";
    assert_eq!(read(crlf(daemon).as_bytes()), Read::NoReport);
    assert_eq!(read(b""), Read::Unreadable);
}

#[test]
fn what_is_huge_or_deep_is_looked_at_no_further() {
    let far = format!("{}{}", "X-Filler: y\r\n".repeat(LARGEST / 13 + 1), crlf(&postfix("failed", "5.1.1", "x")));
    assert!(!matches!(read(far.as_bytes()), Read::Reports(_)));
    let mut deep = String::from("From: postmaster@x.in\r\n");
    for level in 0..5_000 {
        deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"));
    }
    read(deep.as_bytes());
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(8_000);
    read(nested.as_bytes());
    let many = "Final-Recipient: rfc822; a@example.in\nAction: failed\nStatus: 5.1.1\n\n".repeat(1_000);
    let raw = postfix("failed", "5.1.1", "x").replace("Final-Recipient", &format!("{many}Final-Recipient"));
    let Read::Reports(reports) = read(crlf(&raw).as_bytes()) else { panic!("reports") };
    assert_eq!(reports.len(), MOST);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes, reading it ends, and a permanent failure is a failure.
    #[test]
    fn hostile_bytes_are_read_without_harm(
        head in prop::sample::select(vec![
            "Content-Type: multipart/report; boundary=B\r\n\r\n--B\r\nContent-Type: message/delivery-status\r\n\r\n",
            "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n",
            "From: mailer-daemon@x.in\r\nSubject: failure notice\r\n\r\n",
            "From: x@y.in\r\n\r\nThis is the qmail-send program at\r\n\r\n<",
            "",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let raw = [head.as_bytes(), &tail].concat();
        if let Read::Reports(reports) = read(&raw) {
            prop_assert!(reports.len() <= MOST);
            for report in reports {
                prop_assert!(report.tokens.len() <= MOST && report.recipients.len() <= 2 * MOST);
                prop_assert!(!report.permanent || report.kind == Kind::Failed);
            }
        }
    }

    /// A report with one piece put out, doubled or moved is read without harm, and never as about another mail.
    #[test]
    fn a_bent_report_is_at_most_about_the_same_mail(from in 0_usize..1_500, length in 0_usize..200, to in 0_usize..1_500) {
        let raw = crlf(&postfix("failed", "5.1.1", "smtp; 550 5.1.1 unknown")).into_bytes();
        let (from, to) = (from.min(raw.len()), to.min(raw.len()));
        let piece = raw[from..(from + length).min(raw.len())].to_vec();
        let bent = [&raw[..to], &piece, &raw[to..]].concat();
        if let Read::Reports(reports) = read(&bent) {
            for report in reports {
                prop_assert!(report.tokens.iter().all(|token| *token == tokens()[0]));
            }
        }
    }
}
