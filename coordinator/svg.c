/* What drawings as SVG share; see svg.h. */
#include "svg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/memory.h"

void wl_svg_put (FILE *out, const char *text)
{
    for (const unsigned char *c = (const unsigned char *) text; *c; c++) {
        if (*c == '&')
            fputs ("&amp;", out);
        else if (*c == '<')
            fputs ("&lt;", out);
        else if (*c == '>')
            fputs ("&gt;", out);
        else if (*c < 0x20 || *c == 0x7f)
            fputc (' ', out);
        else if (c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe) /* U+FFFE and U+FFFF */
            c += 2;
        else
            fputc (*c, out);
    }
}

void wl_svg_text (FILE *out, double x, double y, const char *class, const char *text)
{
    fprintf (out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    wl_svg_put (out, text);
    fputs ("</text>\n", out);
}

void wl_svg_line (FILE *out, const char *class, double x1, double y1, double x2, double y2)
{
    fprintf (out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1, y1, x2, y2);
}

/* Plain rules for light backgrounds, which every viewer knows, and others over them for dark ones. */
static const char light[] = "text { font: 13px system-ui, sans-serif; fill: #1f2328 }\n"
                            ".paper { fill: #ffffff }\n"
                            ".title { font-size: 17px; font-weight: 600 }\n"
                            ".faint, .end, .middle { fill: #59636e }\n"
                            ".end, .row-end { text-anchor: end }\n"
                            ".middle { text-anchor: middle }\n"
                            ".grid { stroke: #d1d9e0; stroke-width: 1 }\n";
static const char dark[] = "text { fill: #f0f6fc }\n"
                           ".paper { fill: #0d1117 }\n"
                           ".faint, .end, .middle { fill: #9198a1 }\n"
                           ".grid { stroke: #3d444d }\n";

void wl_svg_begin (FILE *out, const wl_svg_page *page)
{
    const double title_y = 32, subtitle_y = 54;
    fprintf (out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
             "role=\"img\">\n<title>",
             page->width, page->height, page->width, page->height);
    wl_svg_put (out, page->title);
    fprintf (out,
             "</title>\n<style>\n%s%s@media (prefers-color-scheme: dark) {\n%s%s}\n</style>\n"
             "<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n",
             light, page->light, dark, page->dark);
    wl_svg_text (out, page->left, title_y, "title", page->title);
    wl_svg_text (out, page->left, subtitle_y, "faint", page->subtitle);
}

bool wl_svg_write (const char *path, const char *flag, void (*draw) (FILE *out, void *context), void *context,
                   wl_error *err)
{
    size_t length = strlen (path) + 32;
    char *aside = wl_new (length, 1, err);
    if (!aside)
        return false;
    snprintf (aside, length, "%s.%ld", path, (long) getpid ());
    FILE *out = fopen (aside, "w");
    if (out)
        draw (out, context);
    bool written = out && !ferror (out);
    written = out && fclose (out) == 0 && written;
    bool ok = written && rename (aside, path) == 0;
    if (!ok) {
        wl_fail (err, WL_ERROR_USAGE, "%s %s: cannot be written: %s", flag, path, strerror (errno));
        unlink (aside);
    }
    free (aside);
    return ok;
}
