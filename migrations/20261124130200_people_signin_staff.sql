-- Whoever signs in is a row of staff. Such rows stay when somebody leaves, so nothing here ever dangles.
alter table muneem.people_credentials
    add constraint people_credentials_staff_id_fkey foreign key (staff_id) references muneem.people_staff (staff_id);
alter table muneem.people_sign_in_codes
    add constraint people_sign_in_codes_staff_id_fkey foreign key (staff_id) references muneem.people_staff (staff_id);
alter table muneem.people_sessions
    add constraint people_sessions_staff_id_fkey foreign key (staff_id) references muneem.people_staff (staff_id);
alter table muneem.people_devices
    add constraint people_devices_staff_id_fkey foreign key (staff_id) references muneem.people_staff (staff_id);
alter table muneem.people_factor_resets
    add constraint people_factor_resets_staff_id_fkey foreign key (staff_id) references muneem.people_staff (staff_id);
alter table muneem.people_passkeys
    add constraint people_passkeys_staff_id_fkey foreign key (staff_id) references muneem.people_staff (staff_id);
alter table muneem.people_passkey_challenges
    add constraint people_passkey_challenges_staff_id_fkey
        foreign key (staff_id) references muneem.people_staff (staff_id);
