//! The console in a real browser, over the built binary: the whole way in, with everything that one signs in with.

use std::{net::TcpListener, path::Path, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use muneem::{
    outbound::http::{Timeouts, client},
    sandbox::{Options, Sandbox},
};
use muneem_jobs::MIGRATOR;
use muneem_postgres::testing::TestDb;
use muneem_tests::{
    binary::Running,
    browser::{Chromium, Tab},
    until,
};
use serde_json::{Value, json};
use sha1::Sha1;
use tokio_util::sync::CancellationToken;

pub(super) const PASSWORD: &str = "four words in a row";

/// RFC 6238: the code of a secret in base 32, so many steps from now.
fn totp(letters: &str, steps: u64) -> String {
    let (mut secret, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in letters.bytes().filter(u8::is_ascii_alphanumeric) {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter).expect("base 32");
        bits = (bits << 5) | u32::try_from(value).expect("five bits");
        held += 5;
        if held >= 8 {
            held -= 8;
            secret.push(u8::try_from(bits >> held & 0xff).expect("a byte"));
        }
        bits &= (1 << held) - 1;
    }
    let now = muneem::outbound::clock::SystemClock;
    let now = muneem_jobs::outbound::Clock::now(&now).timestamp();
    let step = u64::try_from(now).expect("after 1970") / 30 + steps;
    let mut mac = Hmac::<Sha1>::new_from_slice(&secret).expect("any length");
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let at = usize::from(digest[19] & 0xf);
    let four: [u8; 4] = digest[at..at + 4].try_into().expect("four bytes");
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

pub(super) struct House {
    pub(super) db: TestDb,
    pub(super) home: tempfile::TempDir,
    _running: Running,
    pub(super) origin: String,
    mails: String,
    end: CancellationToken,
}

impl Drop for House {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl House {
    pub(super) async fn open() -> Self {
        let db = TestDb::new(&MIGRATOR).await;
        muneem_jobs::schema::migrate(&mut db.pool().acquire().await.unwrap()).await.unwrap();
        let end = CancellationToken::new();
        let sandbox = Sandbox::bind(Options::local(([127, 0, 0, 1], 0).into(), 1)).await.unwrap();
        let (smtp, mails) = (sandbox.mail_address().unwrap(), format!("http://{}/sandbox/mails", sandbox.address()));
        tokio::spawn(sandbox.run(end.clone()));
        let home = tempfile::tempdir().unwrap();
        let at = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let running = Running::start(
            &["serve"],
            home.path(),
            &[
                ("DATABASE_URL", db.app_url()),
                ("MUNEEM__SERVER__LISTEN", at.to_string()),
                ("MUNEEM__MESSAGING__MAIL__HOST", smtp.ip().to_string()),
                ("MUNEEM__MESSAGING__MAIL__PORT", smtp.port().to_string()),
                ("MUNEEM__MESSAGING__MAIL__TLS", "none".to_owned()),
                ("MUNEEM__MESSAGING__MAIL__FROM", "console@sharma.example".to_owned()),
            ],
        );
        let origin = format!("http://localhost:{}", at.port());
        until("the console is there", || async {
            let client = client(Timeouts::DEFAULT).unwrap();
            client.get(format!("{origin}/console/sign-in")).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self { db, home, _running: running, origin, mails, end }
    }

    pub(super) fn link(&self) -> String {
        let file = self.home.path().join(".local/share/muneem/first-owner");
        std::fs::read_to_string(file).expect("the first owner's link").trim().to_owned()
    }

    /// The subject of the newest mail to this address, once there are so many.
    async fn mail(&self, count: usize) -> String {
        let subject = std::sync::Mutex::new(None);
        until("the mail has come", || async {
            let answer = client(Timeouts::DEFAULT).unwrap().get(&self.mails).send().await.unwrap();
            let mails: Vec<Value> = answer.json().await.unwrap();
            let codes: Vec<_> = mails
                .iter()
                .filter_map(|mail| mail["subject"].as_str())
                .filter(|subject| subject.contains("code"))
                .collect();
            *subject.lock().unwrap() = codes.iter().max().map(|text| (*text).to_owned());
            codes.len() >= count
        })
        .await;
        subject.into_inner().unwrap().expect("one has come")
    }
}

/// Keeps pictures for whoever looks at them: `MUNEEM_SCREENSHOTS` names the directory.
pub(super) async fn picture(chromium: &mut Chromium, tab: &Tab, name: &str) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    // Nothing that has to be scrolled sideways on the smallest phone.
    let size = json!({ "width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": true });
    chromium.call(Some(tab), "Emulation.setDeviceMetricsOverride", size).await;
    let wide = chromium.eval(tab, "document.documentElement.scrollWidth").await;
    chromium.call(Some(tab), "Emulation.clearDeviceMetricsOverride", json!({})).await;
    assert!(wide.as_u64().is_some_and(|wide| wide <= 360), "{name} is {wide} wide on a phone of 360");
    let Some(dir) = std::env::var_os("MUNEEM_SCREENSHOTS") else { return };
    for width in [1280, 360] {
        let bytes = STANDARD.decode(chromium.picture(tab, width).await).expect("base 64");
        std::fs::write(Path::new(&dir).join(format!("{name}-{width}.png")), bytes).expect("written");
    }
}

async fn sign_in(chromium: &mut Chromium, tab: &Tab, house: &House) {
    chromium.go(tab, &format!("{}/console/sign-in", house.origin)).await;
    chromium.write(tab, "#who", "asha@example.in").await;
    chromium.write(tab, "#password", PASSWORD).await;
    chromium.press(tab, "button[value=password]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_comes_in_and_signs_in_with_everything_there_is() {
    let house = House::open().await;
    let Some(mut chromium) = Chromium::start(house.home.path()).await else { return };
    let tab = chromium.open().await;
    let authenticator = json!({ "options": {
        "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
        "isUserVerified": true, "automaticPresenceSimulation": true,
    } });
    chromium.call(Some(&tab), "WebAuthn.enable", json!({})).await;
    chromium.call(Some(&tab), "WebAuthn.addVirtualAuthenticator", authenticator).await;

    // By the address instead of the name, as people type it.
    chromium.go(&tab, &house.link().replace("localhost", "127.0.0.1")).await;
    chromium.wait(&tab, "location.hostname === 'localhost'").await;
    picture(&mut chromium, &tab, "invitation").await;
    for (field, text) in [
        ("#business_name", "Sharma Mobiles"),
        ("#name", "Asha Verma"),
        ("#who", "asha@example.in"),
        ("#password", PASSWORD),
    ] {
        chromium.write(&tab, field, text).await;
    }
    chromium.press(&tab, "main .strong").await;
    chromium.at(&tab, "/console/security").await;
    picture(&mut chromium, &tab, "security").await;
    chromium.go(&tab, &format!("{}/console", house.origin)).await;
    picture(&mut chromium, &tab, "home").await;
    chromium.go(&tab, &format!("{}/console/staff", house.origin)).await;
    picture(&mut chromium, &tab, "staff").await;
    chromium.press(&tab, "form[action='/console/sign-out'] button").await;
    chromium.at(&tab, "/console/sign-in").await;
    picture(&mut chromium, &tab, "sign-in").await;
    assert_eq!(chromium.eval(&tab, "document.activeElement.id").await, "who", "the first field is ready to type");

    // By a code.
    chromium.write(&tab, "#who", "asha@example.in").await;
    chromium.press(&tab, "button[value=code]").await;
    chromium.wait(&tab, "document.querySelector('#code') !== null && document.readyState === 'complete'").await;
    picture(&mut chromium, &tab, "code").await;
    let code: String = house.mail(1).await.chars().filter(char::is_ascii_digit).collect();
    chromium.write(&tab, "#code", &code).await;
    chromium.press(&tab, "main .strong").await;
    chromium.at(&tab, "/console").await;

    // An authenticator.
    chromium.go(&tab, &format!("{}/console/security", house.origin)).await;
    chromium.press(&tab, "form[action='/console/security/totp/begin'] button").await;
    chromium.at(&tab, "/console/security/totp").await;
    chromium.wait(&tab, "document.querySelector('.qr path').getBBox().width > 20").await;
    picture(&mut chromium, &tab, "totp").await;
    let secret = chromium.eval(&tab, "document.querySelector('.secret').textContent").await;
    let secret = secret.as_str().expect("letters").to_owned();
    chromium.write(&tab, "#code", &totp(&secret, 0)).await;
    chromium.press(&tab, "main .strong").await;
    chromium.wait(&tab, "document.querySelectorAll('.codes code').length === 10").await;
    picture(&mut chromium, &tab, "recovery").await;
    let recovery = chromium.eval(&tab, "document.querySelector('.codes code').textContent").await;
    let recovery = recovery.as_str().expect("a code").to_owned();
    chromium.press(&tab, "main a.strong").await;
    chromium.at(&tab, "/console/security").await;
    chromium.press(&tab, "form[action='/console/sign-out'] button").await;
    chromium.at(&tab, "/console/sign-in").await;
    sign_in(&mut chromium, &tab, &house).await;
    chromium.at(&tab, "/console/second-factor").await;
    picture(&mut chromium, &tab, "second-factor").await;
    chromium.write(&tab, "#code", "000000").await;
    chromium.press(&tab, "main .card button").await;
    chromium.wait(&tab, "document.querySelector('[role=alert]') !== null").await;
    // The code that set it up is spent; the next one fits already.
    chromium.write(&tab, "#code", &totp(&secret, 1)).await;
    chromium.press(&tab, "main .card button").await;
    chromium.at(&tab, "/console").await;

    // A passkey.
    chromium.go(&tab, &format!("{}/console/security", house.origin)).await;
    chromium.write(&tab, "#label", "laptop").await;
    chromium.press(&tab, "form.passkey button").await;
    chromium.wait(&tab, "document.body.innerText.includes('laptop') && document.readyState === 'complete'").await;
    picture(&mut chromium, &tab, "security-full").await;
    chromium.press(&tab, "form[action='/console/sign-out'] button").await;
    chromium.at(&tab, "/console/sign-in").await;
    sign_in(&mut chromium, &tab, &house).await;
    chromium.at(&tab, "/console/second-factor").await;
    picture(&mut chromium, &tab, "second-factor-passkey").await;
    chromium.press(&tab, "form.passkey button").await;
    chromium.at(&tab, "/console").await;

    // Another browser comes in by a recovery code, is seen, and put out.
    let other = chromium.open().await;
    sign_in(&mut chromium, &other, &house).await;
    chromium.at(&other, "/console/second-factor").await;
    chromium.press(&other, "details summary").await;
    chromium.wait(&other, "document.querySelector('details').open").await;
    chromium.write(&other, "#recovery", &recovery).await;
    chromium.press(&other, "details button").await;
    chromium.at(&other, "/console").await;
    chromium.go(&tab, &format!("{}/console/sessions", house.origin)).await;
    picture(&mut chromium, &tab, "sessions").await;
    chromium.press(&tab, "form[action$='/end'] button").await;
    chromium.wait(&tab, "document.body.innerText.includes('nowhere else')").await;
    chromium.go(&other, &format!("{}/console", house.origin)).await;
    chromium.at(&other, "/console/sign-in").await;

    // What sets up who signs in asks for a fresh proof, and the passkey is one.
    chromium.go(&tab, &format!("{}/console/confirm?next=/console/security/password", house.origin)).await;
    picture(&mut chromium, &tab, "confirm").await;
    chromium.press(&tab, "form.passkey button").await;
    chromium.at(&tab, "/console/security/password").await;
    picture(&mut chromium, &tab, "password").await;

    assert_eq!(chromium.complaints, Vec::<String>::new(), "violations of the policy, or exceptions");
    // And the policy is one: what it forbids is complained of.
    let inline = "const s = document.createElement('script'); s.textContent = '1'; document.body.append(s); true";
    chromium.eval(&tab, inline).await;
    chromium.wait(&tab, "true").await;
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while chromium.complaints.is_empty() {
            chromium.eval(&tab, "1").await;
        }
    });
    assert!(told.await.is_ok(), "an inline script went unnoticed");
}
