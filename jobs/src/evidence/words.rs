//! The words of the acts that are on record, one list: `<duty>.<thing>_<done>`, or what was done where the duty says to
//! what. A [`Word`] is made here alone, an [`super::Event`] takes nothing else, and each names the test that causes it.

/// What an event says was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    text: &'static str,
    test: &'static str,
}

impl Word {
    /// `people.token_made`
    pub const fn as_str(self) -> &'static str {
        self.text
    }

    /// The test that does what the word says and finds the event.
    pub const fn test(self) -> &'static str {
        self.test
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

macro_rules! words {
    ($($test:ident { $($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+ })+) => {
        $($(
            $(#[doc = $doc])+
            pub const $name: Word = Word { text: $text, test: stringify!($test) };
        )+)+

        /// All of them.
        pub const ALL: &[Word] = &[$($($name,)+)+];
    };
}

words! {
    a_frontend_sends_words_by_the_ways_it_names {
        /// Somebody asked for a message by hand or by the API.
        MESSAGE_ASKED = "messaging.message_asked",
    }
    what_does_not_reach_her_by_one_way_goes_by_the_next {
        /// It did not reach its recipient, and goes by the next way.
        MESSAGE_FELL_BACK = "messaging.message_fell_back",
    }
    stop_stops_what_is_queued_and_what_comes {
        /// It was never to be sent: the recipient does not want it, or a rule forbids it.
        MESSAGE_SKIPPED = "messaging.message_skipped",
    }
    a_campaign_goes_out_rests_goes_on_and_ends {
        /// A campaign was made.
        CAMPAIGN_CREATED = "messaging.campaign_created",
        /// People were added to it: how many, and how many were in it already.
        CAMPAIGN_FILLED = "messaging.campaign_filled",
        /// It goes out, for the first time or again.
        CAMPAIGN_STARTED = "messaging.campaign_started",
        /// It rests.
        CAMPAIGN_PAUSED = "messaging.campaign_paused",
        /// It was ended before its time.
        CAMPAIGN_STOPPED = "messaging.campaign_stopped",
        /// All of it went out, or could not.
        CAMPAIGN_DONE = "messaging.campaign_done",
    }
    what_a_campaign_says_is_previewed_and_tested_before_it_goes_out {
        /// Somebody read what one of its people would get.
        CAMPAIGN_PREVIEWED = "messaging.campaign_previewed",
        /// Its words went to a number that somebody named, outside of it.
        CAMPAIGN_TESTED = "messaging.campaign_tested",
    }
    senders_are_held_and_released_as_the_carrier_says {
        /// A number got an app of its business's own, or lost it.
        APP_SET = "messaging.app_set",
        /// The carrier stops a sender: messages wait.
        SENDER_HELD = "messaging.sender_held",
        /// They go out again.
        SENDER_RELEASED = "messaging.sender_released",
        /// The carrier told something that a person should see.
        ALERT_NOTED = "messaging.alert_noted",
        /// Somebody has seen to it.
        ALERT_ENDED = "messaging.alert_ended",
    }
    what_is_missing_is_made_and_what_came_of_it_is_told {
        /// A template is about to be submitted to the carrier.
        TEMPLATE_SUBMITTED = "messaging.template_submitted",
        /// What the carrier answered to it.
        TEMPLATE_ANSWERED = "messaging.template_answered",
    }
    atk_085_what_cannot_be_recorded_is_not_done {
        /// A document was checked and has its number here.
        INVOICE_REGISTERED = "invoice.document_registered",
        /// Its PDF was made and is the one that counts.
        INVOICE_ISSUED = "invoice.document_issued",
        /// A document was refused.
        INVOICE_REFUSED = "invoice.document_refused",
        /// A business has, or changed, the number it sends from.
        ACCOUNT_SET = "messaging.account_set",
        /// An attempt is about to be posted.
        MESSAGE_ATTEMPTED = "messaging.message_attempted",
        /// The carrier has it.
        MESSAGE_SENT = "messaging.message_sent",
        /// An attempt came to nothing; another follows, or a failure.
        ATTEMPT_FAILED = "messaging.attempt_failed",
        /// Nobody can tell what became of an attempt.
        OUTCOME_UNKNOWN = "messaging.outcome_unknown",
        /// What became of it was settled: by silence, or because it was given up.
        OUTCOME_RECONCILED = "messaging.outcome_reconciled",
        /// It reached the phone, or was read.
        MESSAGE_DELIVERED = "messaging.message_delivered",
        /// It will not be delivered.
        MESSAGE_FAILED = "messaging.message_failed",
        /// A webhook whose signature held was kept.
        WEBHOOK_KEPT = "messaging.webhook_kept",
        /// Somebody put a dead job back in line.
        JOB_RETRIED = "queue.job_retried",
        /// Somebody took a job out, or asked its worker to stop.
        JOB_CANCELLED = "queue.job_cancelled",
        /// Somebody added or changed a schedule.
        SCHEDULE_PUT = "schedule.entry_put",
        /// Somebody removed a schedule.
        SCHEDULE_REMOVED = "schedule.entry_removed",
        /// Somebody let a schedule rest.
        SCHEDULE_PAUSED = "schedule.entry_paused",
        /// Somebody let a schedule run again.
        SCHEDULE_RESUMED = "schedule.entry_resumed",
        /// Somebody had a schedule's job made out of turn.
        SCHEDULE_TRIGGERED = "schedule.entry_triggered",
        /// The schema is at another version.
        SCHEMA_MIGRATED = "schema.version_reached",
        /// Other data of the law is in force: its digest.
        LAW_CHANGED = "law.data_changed",
        /// A process began to serve: its version and parts.
        SERVE_STARTED = "serve.process_started",
        /// Written to try or to measure the log itself.
        PROBED = "evidence.log_probed",
    }
    what_somebody_said_of_a_purpose_is_kept_and_the_latest_counts {
        /// Somebody agreed to one purpose.
        CONSENT_GIVEN = "messaging.consent_given",
        /// She took it back.
        CONSENT_WITHDRAWN = "messaging.consent_withdrawn",
        /// Somebody looked at what a contact wants to hear.
        WISHES_SHOWN = "messaging.wishes_shown",
    }
    a_changed_number_takes_every_no_along_and_no_yes {
        /// She is to be asked anew.
        CONSENT_TO_BE_ASKED = "messaging.consent_to_be_asked",
        /// Somebody has another number.
        NUMBER_CHANGED = "messaging.number_changed",
    }
    a_no_is_ended_by_whose_it_is_alone {
        /// A reason not to write was set.
        SUPPRESSION_SET = "messaging.suppression_set",
        /// It ended.
        SUPPRESSION_LIFTED = "messaging.suppression_lifted",
    }
    a_word_to_stop_is_heard_once_and_start_gives_back_what_it_took {
        /// Somebody said something about messages, which had an effect.
        WISH_HEARD = "messaging.wish_heard",
    }
    a_list_that_nobody_has_read_is_turned_on_knowingly {
        /// A business takes an unreviewed list of words at its word, or no more.
        OPT_WORDS_SET = "messaging.opt_words_set",
    }
    atk_098_an_erased_person_is_brought_back_by_herself_alone {
        /// A contact was erased; a keyed index stays.
        CONTACT_ERASED = "messaging.contact_erased",
    }
    a_list_of_consents_is_taken_whole_or_not_at_all {
        /// A list of consents was taken: its digest and counts.
        CONSENTS_IMPORTED = "messaging.consents_imported",
    }
    atk_078_a_check_of_contacts_is_on_record_and_stays_within_the_business {
        /// Somebody asked whether contacts may be written to: how many.
        CONTACTS_CHECKED = "messaging.contacts_checked",
    }
    a_code_is_right_once_and_five_wrong_ones_lock_it {
        /// A one-time code was asked for.
        OTP_ISSUED = "messaging.otp_issued",
        /// The right one was entered.
        OTP_VERIFIED = "messaging.otp_verified",
        /// A wrong one was entered.
        OTP_FAILED = "messaging.otp_failed",
        /// Too many wrong ones were.
        OTP_LOCKED = "messaging.otp_locked",
    }
    a_code_that_nobody_asked_for_is_void {
        /// Whoever got it says that she did not ask.
        OTP_DISOWNED = "messaging.otp_disowned",
    }
    businesses_and_tokens_are_on_record_or_are_not_made {
        /// A business came here.
        BUSINESS_ADDED = "people.business_added",
        /// A token was made: what it may, for whom, until when.
        TOKEN_MADE = "people.token_made",
        /// A token was ended.
        TOKEN_REVOKED = "people.token_revoked",
        /// A token stood in a URL, where logs keep it.
        TOKEN_EXPOSED = "people.token_exposed",
    }
    atk_061_who_is_refused_is_counted_and_on_record_once_a_minute {
        /// Somebody who is known was refused something, so often since the last such event.
        REQUEST_REFUSED = "people.request_refused",
    }
    removing_somebody_ends_her_roles_tokens_and_name_at_once {
        /// Somebody works here from now on, in these roles.
        STAFF_ADDED = "people.staff_added",
        /// She has another role.
        ROLE_GRANTED = "people.role_granted",
        /// She has a role less.
        ROLE_WITHDRAWN = "people.role_withdrawn",
        /// She works here no more.
        STAFF_REMOVED = "people.staff_removed",
    }
    a_profile_is_set_field_by_field_and_shown_in_hints {
        /// Fields of a business's profile were set: which.
        BUSINESS_CHANGED = "people.business_changed",
    }
    a_provider_is_kept_with_its_secret_sealed_until_it_is_removed {
        /// An identity provider may sign people in.
        PROVIDER_ADDED = "people.oidc_provider_added",
        /// It may no more.
        PROVIDER_REMOVED = "people.oidc_provider_removed",
    }
    the_provider_is_asked_as_the_protocol_says_and_the_person_is_signed_in {
        /// A provider said who somebody is.
        PROVIDER_VOUCHED = "people.provider_vouched",
    }
    support_looks_while_the_owner_lets_it_and_every_look_is_on_record_first {
        /// An owner let support in, until when.
        SUPPORT_GRANTED = "people.support_granted",
        /// A person of support has a token that stands on the grant.
        SUPPORT_ENTERED = "people.support_entered",
        /// Support looks, before it is answered.
        SUPPORT_LOOKED = "people.support_looked",
        /// Somebody was shown why it was let in.
        SUPPORT_REASON_SHOWN = "people.support_reason_shown",
        /// The grant is over.
        SUPPORT_ENDED = "people.support_ended",
    }
    names_of_others_are_on_record_before_a_page_shows_them {
        /// Somebody was shown the names of colleagues: whose.
        NAMES_SHOWN = "people.names_shown",
    }
    enough_people_say_yes_and_the_plan_is_carried_out_once {
        /// A decision was asked for.
        APPROVAL_ASKED = "people.approval_asked",
        /// Somebody said yes.
        APPROVAL_GIVEN = "people.approval_given",
        /// What was approved is done.
        APPROVAL_CARRIED_OUT = "people.approval_carried_out",
    }
    one_no_ends_it {
        /// Somebody said no.
        APPROVAL_DENIED = "people.approval_denied",
    }
    atk_063_a_changed_plan_asks_everybody_anew {
        /// Another plan took the place of the one that was asked for.
        APPROVAL_PLAN_CHANGED = "people.approval_plan_changed",
    }
    a_yes_ends_with_its_giver_and_a_question_with_its_asker {
        /// A yes counts no more.
        APPROVAL_TAKEN_BACK = "people.approval_taken_back",
        /// Whoever asked took it back, or left.
        APPROVAL_WITHDRAWN = "people.approval_withdrawn",
    }
    what_has_run_out_is_neither_approved_nor_carried_out_whether_or_not_the_job_has_run {
        /// Its time ran out.
        APPROVAL_EXPIRED = "people.approval_expired",
    }
    the_second_person_of_a_one_person_business_decides_once {
        /// Somebody outside looked at what she decides on.
        APPROVAL_SHOWN = "people.approval_shown",
    }
    an_invitation_ends_with_its_decision_and_when_it_is_taken_back {
        /// Somebody outside was invited to one decision.
        APPROVER_INVITED = "people.approver_invited",
        /// She is no more.
        APPROVER_UNINVITED = "people.approver_uninvited",
    }
    a_link_lets_the_first_owner_in_once_and_looking_at_it_uses_nothing_up {
        /// A link into the console was made.
        INVITED = "people.invited",
        /// Somebody came in by it.
        INVITATION_USED = "people.invitation_used",
    }
    a_new_browser_and_a_new_country_are_told {
        /// Somebody is signed in, by which factor.
        SIGNED_IN = "people.signed_in",
    }
    atk_054_a_stolen_cookie_is_worth_nothing_after_signing_out_or_leaving {
        /// Somebody signed out.
        SIGNED_OUT = "people.signed_out",
    }
    sessions_are_listed_and_ended_from_the_page {
        /// Somebody ended sessions of hers.
        SESSIONS_ENDED = "people.sessions_ended",
    }
    atk_051_strangers_do_not_lock_the_owner_out {
        /// There were so many wrong attempts that the next ones wait.
        SIGN_IN_SLOWED = "people.sign_in_slowed",
    }
    atk_044_a_right_code_to_a_stale_number_is_on_record_and_told_elsewhere {
        /// A code to a phone that nobody confirmed for long was right; by itself it opened nothing.
        STALE_PHONE_PROVED = "people.stale_phone_proved",
    }
    a_password_is_set_by_whoever_has_proved_a_factor_and_ends_other_sessions {
        /// Somebody has another password.
        PASSWORD_SET = "people.password_set",
    }
    a_recovery_code_lets_in_once_and_is_told {
        /// Somebody has an authenticator app.
        TOTP_SET = "people.totp_set",
        /// Somebody has other recovery codes.
        RECOVERY_CODES_MADE = "people.recovery_codes_made",
        /// One of them was used up.
        RECOVERY_CODE_USED = "people.recovery_code_used",
    }
    where_a_second_factor_is_demanded_nothing_else_is_open_until_it_is_set_up {
        /// A business demands a second factor of everybody.
        SECOND_FACTOR_DEMANDED = "people.second_factor_demanded",
    }
    atk_062_a_lost_factor_goes_by_a_second_person_who_may_and_its_owner_can_stop_it {
        /// Somebody has lost her second factor.
        RESET_ASKED = "people.factor_reset_asked",
        /// A second person lets it go.
        RESET_APPROVED = "people.factor_reset_approved",
        /// It stays.
        RESET_CANCELLED = "people.factor_reset_cancelled",
    }
    crash_at_every_step_takes_a_factor_away_once_and_tells {
        /// It is gone.
        RESET_DONE = "people.factor_reset_done",
    }
    a_passkey_is_on_record_when_it_comes_and_when_it_goes {
        /// Somebody has a passkey.
        PASSKEY_ADDED = "people.passkey_added",
        /// It opens nothing any more.
        PASSKEY_REMOVED = "people.passkey_removed",
    }
    atk_058_a_passkey_whose_counter_goes_back_is_put_out_of_use_and_on_record {
        /// There are two of a passkey: it was put out of use.
        PASSKEY_COPIED = "people.passkey_copied",
    }
    the_root_key_of_a_first_start_is_made_once_and_is_on_record {
        /// A root key was made.
        ROOT_MADE = "vault.root_made",
    }
    a_key_is_retired_when_nothing_and_no_backup_refers_to_it {
        /// A key was made.
        KEY_MADE = "vault.key_made",
        /// Another key is made in the place of one.
        KEY_PREPARED = "vault.key_prepared",
        /// It seals from now on.
        KEY_ACTIVATED = "vault.key_activated",
        /// A key opens nothing any more.
        KEY_RETIRED = "vault.key_retired",
    }
    a_replaced_key_opens_what_it_sealed_and_seals_no_more {
        /// A key was made in the place of one, at once.
        KEY_REPLACED = "vault.key_replaced",
    }
    stopped_anywhere_it_goes_on_and_nothing_is_unreadable_in_between {
        /// A business's key is wrapped by another root key.
        KEY_REWRAPPED = "vault.key_rewrapped",
    }
    atk_076_what_a_shredded_person_had_never_opens_again_and_she_may_come_back {
        /// The key of one person is gone, and with it what it sealed.
        SUBJECT_SHREDDED = "vault.subject_shredded",
    }
    atk_100_a_look_at_a_columns_shape_closes_it_and_opens_only_what_is_sealed {
        /// It is not what it was, and closed.
        COLUMN_DRIFTED = "vault.column_drifted",
        /// It is what it was again, and open.
        COLUMN_SOUND = "vault.column_sound",
    }
    atk_078_openings_and_searches_need_their_scope_and_are_on_record {
        /// Values were opened, before they are answered.
        OPENED = "vault.opened",
        /// A value was looked for.
        SEARCHED = "vault.searched",
    }
    an_event_comes_with_a_proof_that_leads_to_a_signed_head {
        /// Somebody read the log.
        READ = "evidence.read",
    }
    bodies_go_month_by_month_after_the_time_of_every_law_and_proofs_stay {
        /// Bodies of events were let go: of before when, by which law.
        BODIES_RETIRED = "evidence.bodies_retired",
    }
    endpoints_are_managed_on_record_and_their_secrets_shown_once {
        /// A business has one receiver of webhooks more.
        WEBHOOK_ENDPOINT_ADDED = "webhooks.endpoint_added",
        /// Something of it was changed: what.
        WEBHOOK_ENDPOINT_CHANGED = "webhooks.endpoint_changed",
        /// It has another secret.
        WEBHOOK_SECRET_ROTATED = "webhooks.secret_rotated",
        /// It is no more.
        WEBHOOK_ENDPOINT_REMOVED = "webhooks.endpoint_removed",
    }
    a_receiver_that_is_gone_is_told_nothing_more {
        /// It is told nothing any more: because somebody said so, because it answered 410, because it may not be called.
        WEBHOOK_ENDPOINT_DISABLED = "webhooks.endpoint_disabled",
    }
    a_receiver_that_fails_for_long_is_paused_loses_nothing_and_comes_back {
        /// It has failed for so long that it is asked only now and then.
        WEBHOOK_ENDPOINT_PAUSED = "webhooks.endpoint_paused",
        /// It answers again.
        WEBHOOK_ENDPOINT_RESUMED = "webhooks.endpoint_resumed",
    }
    everything_since_an_instant_is_told_again_once_however_often_it_is_asked {
        /// Somebody has it told things again: one, or all since when.
        WEBHOOK_REPLAY_ASKED = "webhooks.replay_asked",
    }
    what_cannot_be_walked_is_not_registered {
        /// A column of the frontend's was registered.
        COLUMN_ADDED = "vault.column_added",
        /// It is registered no more.
        COLUMN_REMOVED = "vault.column_removed",
    }
    who_was_removed_or_unlinked_is_not_found {
        /// Somebody is known by an identity of a provider.
        PROVIDER_LINKED = "people.oidc_linked",
        /// She is no more.
        PROVIDER_UNLINKED = "people.oidc_unlinked",
    }
    a_report_that_fits_is_folded_once_and_a_forged_one_never {
        /// A report about mail came in.
        MAIL_REPORT_KEPT = "messaging.mail_report_kept",
        /// It was believed and folded into the mail it is about.
        MAIL_REPORTED = "messaging.mail_reported",
    }
    mail_comes_from_an_address_only_after_its_reader_showed_the_code {
        /// A business has, or changed, the address that its mail comes from.
        MAIL_IDENTITY_SET = "messaging.mail_identity_set",
        /// Somebody who reads that address's mail confirmed it.
        MAIL_IDENTITY_VERIFIED = "messaging.mail_identity_verified",
        /// It has none any more.
        MAIL_IDENTITY_REMOVED = "messaging.mail_identity_removed",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::ALL;

    #[test]
    fn each_word_is_there_once_and_well_formed() {
        let mut seen = BTreeSet::new();
        for word in ALL {
            let text = word.as_str();
            assert!(seen.insert(text), "{text} twice");
            let (duty, done) = text.split_once('.').expect("a duty and what was done");
            let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(plain(duty) && plain(done) && text.len() <= 64, "{text}: <duty>.<thing>_<done>");
        }
    }

    /// That the test finds the event is its own to say; here, that there is one.
    #[test]
    fn each_word_has_a_test_that_causes_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut sources = String::new();
        for folder in ["jobs/src", "worker/src", "worker/tests", "tests/it"] {
            collect(&root.join(folder), &mut sources);
        }
        for word in ALL {
            let test = format!("async fn {}(", word.test());
            assert!(sources.contains(&test), "{word}: there is no test {}", word.test());
        }
    }

    fn collect(folder: &Path, sources: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                collect(&entry, sources);
            } else if entry.extension().is_some_and(|kind| kind == "rs") {
                sources.push_str(&fs::read_to_string(&entry).expect("a source"));
            }
        }
    }
}
