use std::sync::LazyLock;

use typst::{
    foundations::Bytes,
    text::{Font, FontBook},
    utils::LazyHash,
};

macro_rules! font_files {
    ($($file:literal),+ $(,)?) => {
        [$(include_bytes!(concat!("../fonts/", $file, ".ttf")).as_slice()),+]
    };
}

/// Latin and Devanagari in two weights, the other scripts of India in one. All under the SIL Open Font License.
static FILES: [&[u8]; 12] = font_files![
    "NotoSans-Regular",
    "NotoSans-Bold",
    "NotoSansDevanagari-Regular",
    "NotoSansDevanagari-Bold",
    "NotoSansBengali-Regular",
    "NotoSansGujarati-Regular",
    "NotoSansGurmukhi-Regular",
    "NotoSansKannada-Regular",
    "NotoSansMalayalam-Regular",
    "NotoSansOriya-Regular",
    "NotoSansTamil-Regular",
    "NotoSansTelugu-Regular",
];

/// The fonts, parsed once.
pub(crate) struct Fonts {
    pub(crate) fonts: Vec<Font>,
    pub(crate) book: LazyHash<FontBook>,
}

pub(crate) static FONTS: LazyLock<Fonts> = LazyLock::new(|| {
    let fonts: Vec<_> = FILES.into_iter().flat_map(|file| Font::iter(Bytes::new(file))).collect();
    let book = LazyHash::new(FontBook::from_fonts(&fonts));
    Fonts { fonts, book }
});

/// The first character of `text` that no font of ours has a sign for: a PDF for the records may not show a box in its
/// place, so it is refused before.
pub fn find_missing_sign(text: &str) -> Option<char> {
    text.chars().find(|sign| {
        !is_joiner(*sign) && !FONTS.fonts.iter().any(|font| font.info().coverage.contains(u32::from(*sign)))
    })
}

/// Joiners steer the shaping of Indian scripts and are not drawn.
fn is_joiner(sign: char) -> bool {
    matches!(sign, '\u{200C}' | '\u{200D}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_font() {
        assert_eq!(FONTS.fonts.len(), FILES.len());
    }

    #[test]
    fn scripts_of_india_and_the_rupee_have_signs() {
        for text in [
            "₹1,44,168.00 – “x” · № ½",
            "श्रीमती क्षमा ज्ञानेश्वरी",
            "রহিমা বেগম",
            "મીનાબેન",
            "ਗੁਰਪ੍ਰੀਤ",
            "ಕನ್ನಡ",
            "മലയാളം",
            "ଓଡ଼ିଆ",
            "தமிழ்",
            "తెలుగు",
            "क्\u{200D}ष",
        ] {
            assert_eq!(find_missing_sign(text), None, "{text}");
        }
        assert_eq!(find_missing_sign("Phone 😀"), Some('😀'));
        assert_eq!(find_missing_sign("手机"), Some('手'));
    }
}
