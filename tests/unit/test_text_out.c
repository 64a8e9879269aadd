/* Text on its way out: stop strings across token boundaries, and JSON of any bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/text_out.h"

/* Feeds `pieces` (NULL-terminated) through a filter; what was shown is collected in `shown`. */
static bool feed (const wl_option_list *stops, const char *const *pieces, wl_buffer *shown)
{
    wl_error err = {0};
    wl_stop_filter filter;
    wl_text out;
    assert_true (wl_stop_filter_init (&filter, stops, &err));
    *shown = (wl_buffer){0};
    for (; *pieces; pieces++) {
        assert_true (wl_stop_filter_add (&filter, (wl_text){*pieces, strlen (*pieces)}, false, &out, &err));
        assert_true (wl_buffer_add (shown, out.data, out.length, &err));
    }
    assert_true (wl_stop_filter_add (&filter, (wl_text){"", 0}, true, &out, &err));
    assert_true (wl_buffer_add (shown, out.data, out.length, &err));
    bool stopped = filter.stopped;
    wl_stop_filter_free (&filter);
    return stopped;
}

static void a_stop_string_is_found_over_the_boundaries_of_tokens (void **state)
{
    (void) state;
    const struct {
        wl_option_list stops;
        const char *pieces[8];
        const char *shown;
        bool stopped;
    } cases[] = {
        {{{"END"}, 1}, {"one E", "N", "D two", NULL}, "one ", true},
        {{{"END"}, 1}, {"one E", "N", "d two", NULL}, "one ENd two", false},
        {{{"END"}, 1}, {"EEN", "DE", NULL}, "E", true},
        {{{"END"}, 1}, {"still E", NULL}, "still E", false},
        {{{"aab", "b"}, 2}, {"a", "a", "a", "b", NULL}, "a", true},
        {{{"\n\n"}, 1}, {"x\n", "y\n", "\nz", NULL}, "x\ny", true},
        {{{NULL}, 0}, {"all", " of it", NULL}, "all of it", false},
        {{{"now"}, 1}, {"now", NULL}, "", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wl_buffer shown;
        assert_int_equal (feed (&cases[i].stops, cases[i].pieces, &shown), cases[i].stopped);
        assert_string_equal (shown.data ? shown.data : "", cases[i].shown);
        free (shown.data);
    }
}

static void an_empty_stop_string_is_refused (void **state)
{
    (void) state;
    wl_error err = {0};
    wl_stop_filter filter;
    assert_false (wl_stop_filter_init (&filter, &(wl_option_list){{""}, 1}, &err));
    assert_int_equal (err.code, WL_ERROR_USAGE);
}

static void bytes_that_are_not_utf8_become_replacement_characters (void **state)
{
    (void) state;
    const struct {
        const char *bytes, *json;
    } cases[] = {
        {"plain", "plain"},
        {"na\xc3\xafve \xf0\x9f\x99\x82", "na\xc3\xafve \xf0\x9f\x99\x82"},
        {"cut \xf0\x9f\x99", "cut \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xff", "\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *json = wl_json_text (cases[i].bytes, strlen (cases[i].bytes));
        assert_non_null (json);
        assert_string_equal (json_string_value (json), cases[i].json);
        json_decref (json);
    }
}

int main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_stop_string_is_found_over_the_boundaries_of_tokens),
        cmocka_unit_test (an_empty_stop_string_is_refused),
        cmocka_unit_test (bytes_that_are_not_utf8_become_replacement_characters),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
