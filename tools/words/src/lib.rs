//! Numbers as a person reads them.

use std::fmt::Display;

/// A whole number with its thousands apart: "12,000".
pub fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: "1 step", "1,200 steps".
pub fn counted(number: impl Display, what: &str) -> String {
    let number = grouped(number);
    if number == "1" {
        return format!("{number} {what}");
    }
    let hisses = ["s", "x", "ch"].iter().any(|end| what.ends_with(end));
    match what.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u'])) {
        Some(stem) => format!("{number} {stem}ies"),
        None if hisses => format!("{number} {what}es"),
        None => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let told = [0, 999, 1000, 1_281_167].map(grouped);
        assert_eq!(told, ["0", "999", "1,000", "1,281,167"]);
    }

    #[test]
    fn one_thing_is_not_several() {
        for (one, several) in [
            ("image", "images"),
            ("validation image", "validation images"),
            ("class", "classes"),
            ("box", "boxes"),
            ("patch", "patches"),
            ("category", "categories"),
            ("day", "days"),
        ] {
            let told = [0, 1, 11_172].map(|number| counted(number, one));
            assert_eq!(
                told,
                [format!("0 {several}"), format!("1 {one}"), format!("11,172 {several}")]
            );
        }
    }
}
