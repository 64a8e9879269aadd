#!/usr/bin/env python3
"""Writes template_cases.h: what Jinja2 makes of small templates, set up as transformers sets it up.

    python3 tests/unit/template_cases.py > tests/unit/template_cases.h       (package: jinja2)

The expected texts come from Jinja2 itself, so a case is added by adding its template here. Lines of TEMPLATES are one
template each; WHITESPACE holds those with newlines in them."""
import datetime
import json

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2025, 3, 14, 9, 26, 53)

VARIABLES = {
    'messages': [{'role': 'system', 'content': 'You are.'},
                 {'role': 'user', 'content': 'Hi <b> & "q" it\'s'},
                 {'role': 'assistant',
                  'content': None,
                  'tool_calls': [{'function': {'name': 'f', 'arguments': {'a': 1, 'b': [1, 2.5, None, True, 'x']}}}]}],
    'x': 3,
    'f': 2.5,
    's': 'Hello World',
    'u': 'Grüße Straße ǅ ΑΣ Σ 日本 🎉',
    'l': [3, 1, 2],
    'd': {'b': 1, 'a': {'c': 'deep'}, 'items': 7, 'Key': 'v'},
    'n': None,
    't': True,
    'e': '',
    'el': [],
    'ed': {},
    'multi': 'a\nb\r\nc\n\n  d ',
    'objs': [{'n': 'b', 'v': 2, 'k': {'z': 1}}, {'n': 'A', 'v': 1}, {'n': 'a', 'v': 3, 'k': {'z': 0}}],
    'big': 9007199254740993,
    'neg': -7,
    'sp': '  pad\t\n',
    'num': '42.7',
    'tools': [{'type': 'function',
               'function': {'name': 'get',
                            'description': 'D "q" é <x>',
                            'parameters': {'type': 'object',
                                           'properties': {'city': {'type': 'string', 'enum': ['a', 'b']},
                                                          'n': {'type': 'number', 'default': 0.1}},
                                           'required': ['city']}}}]
}

TEMPLATES = r"""
{{ x }}{{ f }}{{ s }}{{ n }}{{ t }}{{ l }}{{ d }}{{ u }}
{{ missing }}|{{ missing.foo }}
{{ missing is defined }}{{ x is defined }}{{ missing|default('z') }}{{ e|default('z') }}{{ e|default('z', true) }}{{ n|d('q') }}{{ n|d('q',boolean=True) }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 1/3 }} {{ 10/5 }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.123 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1.0 }} {{ 100000000000000000000.0 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }}
{{ 1/0 }}
{{ 1//0 }}
{{ 1%0 }}
{{ 1.0/0 }}
{{ 0.1+0.2 }} {{ 1_000 + 0x1F + 0b11 + 0o17 }} {{ 1_0.5e1_0 }} {{ 1e400 }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }} {{ (1,2) == [1,2] }} {{ 'a' in 'abc' }} {{ 'z' not in 'abc' }} {{ 1 in l }} {{ 'b' in d }} {{ 'zz' in d }}
{{ 1 < 'a' }}
{{ 1 in 'abc' }}
{{ missing in 'abc' }}
{{ missing in l }}{{ 1 in missing }}
{{ not x }} {{ not not x }} {{ x and f }} {{ n or 'alt' }} {{ x and n }} {{ e or el or ed or 0 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1] ~ missing ~ 'b' }}
{{ 'a' + 1 }}
{{ 'a' + 'b' 'c' "d" }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [1] * 3 }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'x' * -1 }} {{ true + true }}
{{ 'a' if x else 'b' }} {{ 'a' if n else 'b' }} {{ 'a' if n }} {{ ('a' if n) is defined }} {{ 1 if 0 else 2 if 0 else 3 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[:-1] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }} {{ s[5:2] }} {{ s[5:2:-1] }} {{ s[100] }} {{ s[100:] }} {{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ l[-100:100] }} {{ u[::-1] }} {{ u[2:5] }} {{ u[-1] }} {{ u[0] }} {{ u[::3] }} {{ u[::-2] }}
{{ l[0:2:0] }}
{{ l['a':] }}
{{ d[1:] }}
{{ n[1:] }}
{{ missing[1:] }}
{{ l[none:none] }} {{ (1,2,3)[1:] }} {{ range(10)[2:8:2] }} {{ range(10)[3] }} {{ range(5)[::-1]|list }}
{{ d['items'] }} {{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.zz }} {{ d.zz.yy }}
{{ d.keys() }} {{ d.values() }} {{ d.items() }} {{ d.keys()|list }} {{ d|list }} {{ d.items()|list }}
{{ n.foo }}
{{ n['foo'] }}|{{ l.foo }}|{{ l['foo'] }}|{{ l[50] }}|{{ x.foo }}|{{ s.foo }}|{{ x[0] }}
{{ l.append(1) }}
{{ d.update({}) }}
{{ d.pop('b') }}
{{ d.setdefault('q', 1) }}
{{ l.append }}|{{ d.pop is defined }}|{{ d.__class__ }}|{{ d._x }}|{{ s.__class__.foo }}
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ s.swapcase() }} {{ u.upper() }} {{ u.lower() }} {{ u.title() }} {{ u.capitalize() }} {{ u.casefold() }} {{ u.swapcase() }} {{ "they're o'neil x1y"|title }} {{ "they're o'neil x1y".title() }}
{{ sp.strip() }}|{{ sp.lstrip() }}|{{ sp.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcba'.strip('ab') }}|{{ 'éaé'.strip('é') }}|{{ s.strip(none) }}
{{ 'a,b,,c'.split(',') }} {{ 'a b  c '.split() }} {{ ' a b  c '.split(none, 1) }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b c '.rsplit(none,1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'abc'.split('abc') }} {{ 'aaa'.rsplit('aa') }} {{ 'aXbXc'.split('X', maxsplit=1) }} {{ 'aXbXc'.split(sep='X') }}
{{ 'a'.split('') }}
{{ multi.splitlines() }} {{ multi.splitlines(true) }} {{ multi.splitlines(keepends=True) }} {{ 'a\n'.splitlines() }} {{ ''.splitlines() }}
{{ s.startswith('He') }} {{ s.endswith('ld') }} {{ s.startswith(('x','H')) }} {{ s.startswith('l', 2) }} {{ s.endswith('o', 0, 5) }} {{ s.startswith('') }} {{ s.startswith('', 50) }} {{ s.startswith('', 11) }}
{{ s.startswith(1) }}
{{ s.replace('l', 'L') }} {{ s.replace('l','L',1) }} {{ 'abc'.replace('','-') }} {{ ''.replace('','-') }} {{ 'abc'.replace('','-',2) }} {{ s|replace('o','0') }} {{ s|replace('o','0',1) }} {{ x|replace('3','4') }} {{ 'aaa'.replace('aa','b') }}
{{ s.find('o') }} {{ s.find('zz') }} {{ s.rfind('o') }} {{ s.find('o', 5) }} {{ s.index('W') }} {{ s.count('l') }} {{ s.count('') }} {{ u.find('ß') }} {{ u.find('日') }} {{ u.rfind('Σ') }} {{ s.find('') }} {{ s.find('', 20) }} {{ s.rfind('') }} {{ s.find('o',-4,-1) }}
{{ s.index('zz') }}
{{ ','.join(['a','b']) }} {{ ','.join('abc') }} {{ ''.join([]) }} {{ l|join(', ') }} {{ objs|join('-', attribute='n') }} {{ d|join }} {{ 'abc'|join('.') }}
{{ ','.join([1]) }}
{{ 'abc'.center(9) }}|{{ 'abc'.center(10,'*') }}|{{ 'abcd'.center(9,'*') }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3,'.') }}|{{ '-5'.zfill(5) }}|{{ 'é'.zfill(3) }}|{{ 'a\tb'.expandtabs() }}|{{ 'a\tb'.expandtabs(4) }}|{{ 'x'|center(5) }}|
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }}
{{ 'prefix'.removeprefix('pre') }} {{ 'suffix'.removesuffix('fix') }} {{ 'abc'.removeprefix('x') }}
{{ 'a'.isalpha() }}{{ '1'.isdigit() }}{{ ''.isdigit() }}{{ '²'.isdigit() }}{{ '½'.isnumeric() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'A'.isupper() }}{{ 'a'.islower() }}{{ 'Ab Cd'.istitle() }}{{ 'x_1'.isidentifier() }}{{ 'é'.isascii() }}{{ 'a\n'.isprintable() }}{{ '5'.isdecimal() }}{{ 'aB'.islower() }}{{ '1'.isupper() }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 'a') }} {{ '{x} {y:>5}|{y:<5}|{y:^5}|{y:*^7}'.format(x=1, y='ab') }} {{ '{:05d} {:.2f} {:,} {:x} {:#x} {:b} {:e} {:%} {:+d} {: d}'.format(42, 3.14159, 1234567, 255, 255, 5, 12345.678, 0.25, 5, 5) }} {{ '{0[a]} {1.foo}'.format({'a':1}, {'foo':2}) }} {{ '{{}} {!r:>6}'.format('a') }} {{ '{:>{w}}'.format('a', w=5) }} {{ '{}'.format(none) }} {{ '{:10.3}|'.format('abcdef') }} {{ '{:10}|{:<10}|'.format(5, 5) }} {{ '{:_}'.format(1234567) }} {{ '{:08.3f}'.format(-3.14159) }} {{ '{:g} {:g}'.format(1e10, 0.00001) }} {{ '{:.3}'.format(3.0) }} {{ '{:.3}'.format(1234.5) }} {{ '{:.3}'.format(123.0) }} {{ '{}'.format(1.0) }} {{ '{:5}|{:5}|'.format(true, 'x') }} {{ '{:08,}'.format(1234) }} {{ '{!s} {!a}'.format('é', 'é') }} {{ '{:d}'.format(true) }} {{ '{:c}'.format(65) }} {{ '{:n}'.format(5) }} {{ '{:=+6d}'.format(5) }} {{ '{:G}'.format(1e20) }} {{ '{:X}'.format(255) }}
{{ '{'.format(1) }}
{{ '}'.format(1) }}
{{ '{}'.format() }}
{{ '{a}'.format(b=1) }}
{{ '{:d}'.format('a') }}
{{ '{:s}'.format(1) }}
{{ '{0} {}'.format(1,2) }}
{{ '{:.2d}'.format(1) }}
{{ '{:>5}'.format([1]) }}
{{ '{.__class__}'.format(1) }}|{{ '{0.upper}'.format('x') is string }}
{{ '%s %d %5.2f %x %r %%' % ('a', 5, 3.14159, 255, 'q') }} {{ '%s' % 5 }} {{ '%s' % [1,2] }} {{ '%(a)s-%(b)03d' % {'a':1,'b':2} }} {{ '%-5s|%5s|' % ('a','b') }} {{ '%05d|%+d|% d|%-5d|' % (42,5,5,5) }} {{ '%e %g %G' % (12345.678, 0.0001, 1e20) }} {{ '%c%c' % ('a', 66) }} {{ '%#x %#o %o' % (255, 8, 8) }} {{ '%.3s|' % 'abcdef' }} {{ '%*d|' % (5, 3) }} {{ '%i %u' % (3.9, 4) }} {{ '%5.3d|' % 7 }} {{ '%s' % none }} {{ '%a' % 'é' }} {{ '%05.1f' % -2.5 }} {{ '%x' % -255 }}
{{ '%s %s' % 'a' }}
{{ '%s' % ('a','b') }}
{{ '%d' % 'a' }}
{{ '%z' % 1 }}
{{ '%' % 1 }}
{{ 'abc' % 1 }}
{{ 'abc' % [1] }}|{{ 'abc' % {} }}|{{ 'abc' % () }}|{{ '%s' % missing }}
{{ '%s-%s'|format('a', 1) }} {{ '%(x)s'|format(x=5) }} {{ 'plain'|format }}
{{ s|upper }}{{ s|lower }}{{ s|title }}{{ s|capitalize }}{{ s|length }}{{ l|length }}{{ d|count }}{{ u|length }}{{ u|title }}{{ missing|length }}{{ missing|upper }}{{ n|upper }}{{ 5|upper }}
{{ 5|length }}
{{ s|trim }}|{{ sp|trim }}|{{ 'xax'|trim('x') }}|{{ 'xax'|trim(chars='x') }}
{{ l|first }}{{ l|last }}{{ el|first }}{{ el|last }}{{ s|first }}{{ s|last }}{{ d|first }}{{ d|last }}
{{ l|sort }} {{ l|sort(reverse=true) }} {{ ['b','A','c']|sort }} {{ ['b','A','c']|sort(case_sensitive=true) }} {{ objs|sort(attribute='n')|map(attribute='v')|list }} {{ objs|sort(attribute='n,v')|map(attribute='v')|join }} {{ objs|sort(attribute='v', reverse=True)|map(attribute='n')|list }} {{ d|sort }} {{ 'hello'|sort }}
{{ [1,'a']|sort }}
{{ l|reverse|list }} {{ s|reverse }} {{ u|reverse }} {{ d|reverse|list }} {{ range(3)|reverse|list }} {{ l|map('string')|reverse }}
{{ l|min }}{{ l|max }}{{ l|sum }}{{ el|min }}{{ ['B','a']|min }}{{ ['B','a']|min(case_sensitive=true) }}{{ objs|max(attribute='v') }}{{ objs|sum(attribute='v') }}{{ l|sum(start=10) }}{{ [[1],[2]]|sum(start=[]) }}
{{ ['a']|sum }}
{{ [1,1,2,'a','A']|unique|list }} {{ ['a','A']|unique(case_sensitive=true)|list }} {{ objs|unique(attribute='n')|map(attribute='n')|list }} {{ [1,1.0,true]|unique|list }}
{{ [[1]]|unique|list }}
{{ l|map('string')|list }} {{ ['a','b']|map('upper')|join }} {{ objs|map(attribute='n')|list }} {{ objs|map(attribute='k.z')|list }} {{ objs|map(attribute='k.z', default=9)|list }} {{ ['a']|map('replace','a','b')|list }} {{ [[1,2],[3]]|map(attribute=0)|list }} {{ [[1,2],[3,4]]|map(attribute='1')|list }} {{ [' a ']|map('trim')|list }} {{ l|map('default', 5)|list }}
{{ l|map('nofilter') is defined }}
{{ l|map('nofilter')|list }}
{{ [1,0,2,none]|select|list }} {{ l|select('odd')|list }} {{ l|select('gt', 1)|list }} {{ l|reject('odd')|list }} {{ [1,0]|reject|list }} {{ objs|selectattr('k')|map(attribute='n')|list }} {{ objs|selectattr('n','equalto','a')|list }} {{ objs|selectattr('v','in',[1,2])|map(attribute='n')|list }} {{ objs|rejectattr('k')|map(attribute='n')|list }} {{ objs|selectattr('k.z','defined')|map(attribute='n')|list }} {{ objs|selectattr('n','==','A')|list|length }} {{ objs|selectattr('v','>=',2)|map(attribute='n')|join(',') }}
{{ l|select('nothere') is defined }}
{{ l|select('odd')|length }}
{{ d|dictsort }} {{ d|dictsort(true) }} {{ {'b':2,'a':3}|dictsort(by='value') }} {{ {'b':2,'a':3}|dictsort(reverse=true) }} {{ {'b':2,'a':3}|dictsort(false,'value',true) }}
{{ l|dictsort }}
{{ d|items|list }} {{ missing|items|list }} {{ d|tojson }} {{ tools|tojson }} {{ tools|tojson(indent=4) }} {{ tools|tojson(indent=2, ensure_ascii=true) }} {{ u|tojson }} {{ u|tojson(ensure_ascii=True) }} {{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',',':')) }} {{ {}|tojson(indent=2) }} {{ []|tojson(indent=2) }} {{ [[],{}]|tojson(indent=1) }} {{ 1.0|tojson }} {{ none|tojson }} {{ true|tojson }} {{ (1,2)|tojson }} {{ {1:2,none:3,true:4,1.5:5}|tojson }} {{ '\x00\x1f\x7f"\\/\b\f'|tojson }} {{ d|tojson(indent='\t') }} {{ d|tojson(indent=0) }} {{ '</script>&\''|tojson }} {{ 1e16|tojson }} {{ (1e308*10)|tojson }} {{ d|tojson(none, 2) }} {{ '\x7f'|tojson(ensure_ascii=true) }}
{{ missing|tojson }}
{{ range(3)|tojson }}
{{ {(1,2):3}|tojson }}
{{ d.keys()|tojson }}
{{ '42'|int }} {{ '42.7'|int }} {{ 'x'|int }} {{ 'x'|int(5) }} {{ 42.9|int }} {{ none|int }} {{ '0x1A'|int(base=16) }} {{ '1010'|int(0,2) }} {{ ' 7 '|int }} {{ '1_000'|int }} {{ true|int }} {{ '-5'|int }} {{ '１２'|int }} {{ 'inf'|int }} {{ '12abc'|int(default=-1) }} {{ '0x1A'|int(0,0) }} {{ '1e3'|int }}
{{ missing|int }}
{{ '4.5'|float }} {{ 'x'|float }} {{ 'x'|float(1.5) }} {{ 5|float }} {{ 'nan'|float }} {{ 'inf'|float }} {{ '1e5'|float }} {{ none|float }} {{ '1_0.5'|float }} {{ '.5'|float }} {{ '5.'|float }} {{ '0x10'|float }} {{ '-inf'|float }}
{{ -5|abs }} {{ -5.5|abs }} {{ (-5)|abs }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.567|round(2) }} {{ 5|round }} {{ 2.1|round(0,'ceil') }} {{ 2.9|round(method='floor') }} {{ 1234.567|round(-2) }} {{ 15|round(-1) }} {{ 25|round(-1) }} {{ 1.005|round(2) }} {{ 0.5|round }} {{ 1.5|round|int }} {{ -2.5|round }}
{{ 'a'|abs }}
{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3,4,5]|batch(2,'x')|list }} {{ [1,2,3,4,5]|slice(2)|list }} {{ [1,2,3,4,5]|slice(3,'x')|list }} {{ 'abcde'|batch(2)|map('join')|list }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a\nb'|indent('>>') }}|{{ 'a\nb\n'|indent(width=3, first=True) }}|{{ ''|indent }}|
{{ objs|groupby('n') }} {% for k, v in objs|groupby('n', case_sensitive=true) %}{{ k }}={{ v|length }};{% endfor %} {% for g in objs|groupby('v') %}{{ g.grouper }}{{ g.list }}{% endfor %} {{ objs|groupby('k.z', default=5)|map(attribute='grouper')|list }}
{{ 'one two  three'|wordcount }} {{ u|wordcount }} {{ 'a<b>&"\''|escape }} {{ 'a<b'|e }} {{ 'a<b'|safe }} {{ ('a<b'|e) + '<' }} {{ 'a<b'|e ~ '<' }} {{ ('<'|safe)|e }} {{ '<'|e|forceescape }} {{ ('<b>'|safe) is escaped }} {{ ('<'|safe).upper() ~ ('%s'|safe % '<') }} {{ ('<b>'|safe)|upper + '<' }} {{ ['<', '<'|safe]|join(',') }} {{ ('{}'|safe).format('<') }} {{ (','|safe).join(['<','a']) }} {{ ['<'|safe] }}
{{ 'hello world foo'|truncate(9) }}|{{ 'hello world foo'|truncate(9, true) }}|{{ 'hello world'|truncate(9) }}|{{ 'hello world'|truncate(9, leeway=0) }}|{{ 'hello world'|truncate(9, false, '..', 0) }}|{{ 'hello'|truncate(2, end='') }}|{{ 'hello world'|truncate(7, true, '', 0) }}|{{ 'héllo wörld'|truncate(8, true, '', 0) }}
{{ 'x'|truncate(2) }}
{{ {'a':1,'b':none,'c':'<'}|xmlattr }}{{ {'a':1}|xmlattr(false) }} {{ 'a b/c?d=é'|urlencode }} {{ {'a b':1,'c':'/'}|urlencode }} {{ [('a','b')]|urlencode }} {{ 1|filesizeformat }} {{ 1000|filesizeformat }} {{ 1500000|filesizeformat }} {{ 1024|filesizeformat(true) }} {{ 10**12|filesizeformat }} {{ 500.7|filesizeformat }}
{{ x is number }}{{ x is integer }}{{ f is float }}{{ x is float }}{{ t is boolean }}{{ t is number }}{{ t is integer }}{{ s is string }}{{ d is mapping }}{{ l is iterable }}{{ s is iterable }}{{ x is iterable }}{{ l is sequence }}{{ d is sequence }}{{ s is sequence }}{{ x is sequence }}{{ n is none }}{{ t is true }}{{ t is false }}{{ 1 is true }}{{ 3 is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ s is callable }}{{ range is callable }}{{ s.upper is callable }}{{ x is eq 3 }}{{ x is ne 3 }}{{ x is gt 2 }}{{ x is ge(3) }}{{ x is lt 2 }}{{ x is le 3 }}{{ x is in [3] }}{{ x is not in [3] }}{{ 'a' is in 'abc' }}{{ x is sameas x }}{{ none is sameas none }}{{ 'ab' is lower }}{{ 'AB' is upper }}{{ 'e' is filter }}{{ 'zz' is filter }}{{ 'odd' is test }}{{ missing is undefined }}{{ missing is iterable }}{{ missing is sequence }}{{ missing is callable }}{{ missing is string }}{{ missing is mapping }}{{ range(3) is sequence }}{{ range(3) is iterable }}{{ d.items() is iterable }}{{ d.items() is sequence }}{{ l|map('int') is iterable }}{{ missing is eq missing2 }}{{ namespace() is mapping }}{{ x is equalto 3 }}{{ x is greaterthan 2 }}{{ x is lessthan 5 }}
{{ missing is odd }}
{{ x is nosuchtest }}
{{ x|nosuchfilter }}
{% if false %}{{ x|nosuchfilter }}{% endif %}ok
{% if true %}{{ x|nosuchfilter }}{% endif %}
{{ 1 if true else x|nosuchfilter }}
{% if false %}{% for i in l %}{{ x|nosuchfilter }}{% endfor %}{% endif %}ok
{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a','b') }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem.role }}{{ loop.nextitem.role if loop.nextitem }}{{ loop.changed(m.role) }};{% endfor %}
{% for m in messages %}{{ loop.previtem.role }}{% endfor %}
{% for m in messages %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% else %}E{% endfor %}{% for m in [] %}x{% else %}E{% endfor %}{% for m in missing %}x{% else %}M{% endfor %}
{% for m in none %}{% endfor %}
{% for m in 5 %}{% endfor %}
{% for a, b in d.items() %}{{ a }}={{ b }};{% endfor %}{% for a, (b, c) in [(1,(2,3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in u %}{{ c }}.{% endfor %}
{% for a, b in [(1,2,3)] %}{% endfor %}
{% for a, b in [(1,)] %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{{ loop.length }};{% endfor %}{{ x }}
{% set ns = namespace(found=false) %}{% for i in range(5) if not ns.found %}{{ i }}{% if i == 2 %}{% set ns.found = true %}{% endif %}{% endfor %}
{% set ns = namespace(found=false) %}{% for i in range(5) if not ns.found %}{{ i }}{{ loop.last }}{% if i == 2 %}{% set ns.found = true %}{% endif %}{% endfor %}
{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [1] %}{% continue %}{% else %}E{% endfor %}{% for i in [1] %}{% break %}{% else %}F{% endfor %}{% for i in [1,2] %}{% if i == 1 %}{% continue %}{% endif %}{% else %}G{% endfor %}
{% for i in [1,2] %}{% for j in [] %}{% else %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}after{% endfor %}
{% break %}
{% macro m() %}{% for i in l %}{% break %}{% endfor %}x{% endmacro %}{{ m() }}
{% for i in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% for i in l %}{% set q %}a{% break %}{% endset %}{% endfor %}x
{% for i in l %}a{% filter upper %}b{% continue %}{% endfilter %}c{% endfor %}x
{% for i in l recursive %}{{ i }}{% endfor %}{% for n in [{'c':[{'c':[]},{'c':[]}]}] recursive %}<{{ loop.depth }}{{ loop.index }}{{ loop(n.c) }}>{% else %}-{% endfor %}
{% for i in l %}{{ loop([1]) }}{% endfor %}
{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}{% for i in l %}{% set a = i %}{{ a }}{% endfor %}{{ a }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}{% set e = 1, 2 %}{{ e }}{% set f = (1,) %}{{ f }}{% set g = () %}{{ g }}
{% set x = x + 1 %}{{ x }}{% for i in l %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}
{% for i in l %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}
{% for i in l %}{{ zed }}{% endfor %}{% set zed = 1 %}{{ zed }}
{% for i in l %}{{ s }}{% endfor %}{% set s = 1 %}{{ s }}
{{ s }}{% for i in l %}{{ s }}{% endfor %}{% set s = 1 %}{{ s }}
{% if false %}{% set s = 1 %}{% endif %}{{ s }}
{% if true %}{% if false %}{% set s = 1 %}{% endif %}{% endif %}{% for i in [1] %}{{ s }}{% if false %}{% set s = 1 %}{% endif %}{{ s }}{% endfor %}
{% set s %}{{ s }}{% endset %}[{{ s }}]
{% macro m() %}{{ s }}{% set s = 2 %}{{ s }}{% endmacro %}{{ m() }}{{ s }}
{% macro m() %}{{ later }}{% endmacro %}{{ m() }}{% set later = 5 %}{{ m() }}
{% set ns = namespace(a=1, b='x') %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns['a'] }}{{ ns }}
{% set ns = namespace({'q':1}, r=2) %}{{ ns.q }}{{ ns.r }}{% set ns.q, ns.r = 5, 6 %}{{ ns.q }}{{ ns.r }}
{% set d.x = 1 %}
{% set nothere.x = 1 %}
{% set y %}a{{ x }}b{% endset %}{{ y }}{% set z | upper | replace('A','q') %}abc{% endset %}{{ z }}{% set w | default('x') %}{% endset %}[{{ w }}]
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1,3) }}{{ m(1,c='y') }}{{ m(a=5) }}{{ m() }}{{ m }}{{ m.name }}{{ m.arguments }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1,2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1,2,3,k=4) }}{{ m() }}
{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}{% macro q(a=a) %}[{{ a }}]{% endmacro %}{{ q() }}
{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{{ x }}{% endcall %}{% macro o() %}{{ caller('p', q=1) }}{% endmacro %}{% call(a, q) o() %}{{ a }}{{ q }}{% endcall %}
{% macro m() %}x{% endmacro %}{% call m() %}in{% endcall %}
{% macro m() %}{{ caller }}{% endmacro %}[{{ m() }}]
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% macro m() %}{{ caller is defined }}{% if caller %}y{% endif %}{% endmacro %}{{ m() }}{% call m() %}q{% endcall %}
{% macro outer() %}{% call inner() %}{{ caller() }}{% endcall %}{% endmacro %}{% macro inner() %}({{ caller() }}){% endmacro %}{% call outer() %}z{% endcall %}
{% macro fact(n) %}{% if n > 1 %}{{ n }}*{{ fact(n-1) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}
{% macro m(a,b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1,2]) }}{{ m(**{'a':1,'b':2}) }}{{ m(*[1], **{'b':3}) }}{{ m(1, *[2]) }}
{% macro m(a, a) %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% filter upper %}abc{{ x }}{% endfilter %}{% filter replace('a','b')|upper %}aaa{% endfilter %}
{% with a=1, b=2 %}{{ a }}{{ b }}{% endwith %}{{ a }}{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}{% with x = x + 1, y = x %}{{ x }}{{ y }}{% endwith %}
{% generation %}gen{{ x }}{% set x = 9 %}{{ x }}{% endgeneration %}{{ x }}
{% for i in l %}{% generation %}{{ i }}{{ loop.index }}{% endgeneration %}{% endfor %}
{% raw %}{{ not }} {% if %}{% endraw %} {# comment {{ x }} #}after
{{ '%}' }}{{ "}}" }}{{ {'a':{'b':1}}}}
{{ '\u12' }}
{{ x
{% if x
{% if x %}
{{ x }
{{ x) }}
{{ (x }}
{% endif %}
{% unknown %}
{% for %}{% endfor %}
{% for x y %}{% endfor %}
{{ }}
{{ x y }}
{{ 1 2 }}
{{ x! }}
{{ 'a }}
{# a
{% raw %}
{{ [1, 2, ] }}{{ (1, 2, ) }}{{ {'a': 1, } }}{{ [] }}{{ {} }}{{ () }}{{ (1) }}{{ 1, 2 }}{{ (1,) }}
{{ range(5)|list }}{{ range(1,5)|list }}{{ range(5,1,-2)|list }}{{ range(3) }}{{ range(0,5,2) }}{{ range(0) }}{{ range(3)|length }}{{ range(5)|sum }}{{ 3 in range(5) }}
{{ range(100001) }}
{{ range(1,2,0) }}
{{ range('a') }}
{{ dict(a=1, b=2) }}{{ dict([('a',1)]) }}{{ dict({'x':1}, y=2) }}{{ dict() }}
{{ dict(1) }}
{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}
{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}c
{{ raise_exception('msg here') }}
{{ raise_exception(5) }}
{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %B %a %A %j %y %I %p %f %% %e %-d') }}
{{ x() }}
{{ missing() }}
{{ s.upper(1) }}
{{ -x }}{{ +x }}{{ - x }}{{ -f }}{{ --x }}{{ -x|abs }}{{ -true }}
{{ -s }}
{{ +s }}
{{ x is not defined }}{{ not x is defined }}{{ x is defined and f is defined }}{{ x is defined or missing }}{{ 'a' if x is defined else 'b' }}{{ x is none or x }}
{{ x is defined is true }}
{{ l.0 }}{{ l.1 }}{{ messages.0.role }}{{ objs[0].k['z'] }}{{ objs[0]['k'].z }}{{ 'abc'.0 }}
{{ messages[0]['content'][:3] ~ messages[-1].role }}{{ messages|map(attribute='role')|join(',') }}{{ (messages|first).role }}{{ messages|length - 1 }}{{ messages[1:]|length }}
{{ x|default(1)|string|length + 1 }}{{ 'a'|upper ~ 'b'|upper }}{{ 1 + 2|string|int }}{{ (1 + 2)|string }}{{ not x|default }}
{{ l == [3,1,2] }}{{ d == d }}{{ {'a':1} == {'a':1.0} }}{{ none == false }}{{ missing == none }}{{ missing == missing2 }}{{ 'a' != 'b' }}{{ [1] != [1] }}{{ big == 9007199254740992.0 }}{{ big > 9007199254740992.0 }}{{ range(3) == range(0,3) }}
{% set x = {'a':1} %}{{ x.a }}{{ x['a'] }}{{ x.get('b','c') }}{{ {1:'a'}[1] }}{{ {1:'a'}[1.0] }}{{ {1:'a'}[true] }}{{ {(1,2):'t'}[(1,2)] }}{{ {1:2}['1'] }}{{ {none:1}[none] }}
{{ {[1]:2} }}
{{ d[[1]] }}|{{ d[n] }}|{{ l[1.0] }}|{{ l[n] }}|{{ l[true] }}|{{ s[n] }}
{{ l|join(',') ~ s|join('-') }}{{ l|string }}{{ d|string|length }}
{% print x, s %}{% print "a" %}
{% block a %}A{{ s }}{% endblock %}{% set q = 1 %}{% block b %}{{ q }}{% endblock b %}{{ self.a() }}
{% for i in l %}{% block c %}[{{ i }}]{% endblock %}{% endfor %}{% for i in l %}{% block cc scoped %}[{{ i }}]{% endblock %}{% endfor %}
{% block a %}{% endblock %}{% block a %}{% endblock %}
{% include 'x' %}
{% extends 'x' %}
{% import 'x' as y %}
{% if false %}{% include 'x' %}{% endif %}ok
{% autoescape false %}{{ '<' }}{% endautoescape %}
{% if x == 3 %}a{% elif x == 4 %}b{% else %}c{% endif %}{% if x == 4 %}a{% elif x == 3 %}b{% else %}c{% endif %}{% if n %}a{% elif n %}b{% else %}c{% endif %}{% if x: %}q{% endif %}{% if a, b %}t{% endif %}
{% for x in l: %}{{ x }}{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}
{% set loop = 1 %}{{ loop }}{% for i in l %}{{ loop.index }}{% endfor %}
{% for loop in l %}{% endfor %}
{% for i in l %}{% set loop = 1 %}{% endfor %}
{% for i in l %}{% for j in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for i in l %}{% set outer = loop %}{% for j in [1] %}{{ outer.index }}{% endfor %}{% endfor %}
{% for i in l %}{% if loop.index is odd %}o{% else %}e{% endif %}{% endfor %}{{ loop }}
{% for i in l|map('string') %}{{ loop.length }}{{ i }}{{ loop.revindex }}{% endfor %}{% for i in l|map('string') %}{{ i }}{{ loop.last }}{{ loop.length }}{% endfor %}
{% set true = 1 %}
{% set 'a' = 1 %}
{% set a.b.c = 1 %}
{% set a[0] = 1 %}
{{ caller }}{{ varargs }}{{ if }}{{ loop }}
{{ 'a' 'b' ~ 'c' }}{{ 'x' in ['x'] and 'y' }}{{ 1 not in [2] }}{{ not 1 in [2] }}{{ 1 in [1] in [[1]] }}{{ 1 == 1 in [1] }}
{{ 1 if x is string else 2 }}{{ (x, s)[1] }}{{ [1,2,3][1] }}{{ {'a':[1,2]}['a'][-1] }}{{ 'abc'[1] }}{{ "abc"|list }}{{ ("a" if x else "b") ~ "c" }}
{{ x|attr('real') }}{{ d|attr('b') }}{{ d|attr('get')('b') }}{{ x.real }}{{ f.is_integer() }}{{ x.bit_length() }}{{ l.index(1) }}{{ l.count(3) }}{{ (1,2).index(2) }}{{ l.copy() }}{{ d.copy() == d }}{{ {}.fromkeys(['a'],1) }}
{{ l.index(99) }}
{{ [missing] }}{{ {'a':missing} }}{{ ['a\'b', "a\"b", 'a\'"b', '\n\t\\\x00\x7f\u200b\u00a0é🎉'] }}
{{ [1.0, 1e100, -0.0, 1e22, 123456789012345680.0] }}
{{ '٣' * 2 }}{{ '٣'|int }}{{ 'ﬁ'|upper }}{{ 'İ'|lower|length }}{{ 'ŉ'.upper() }}{{ 'ß'|title }}{{ 'ß'|capitalize }}{{ 'ΌΔΟΣ ΌΔΟΣ'|lower }}
{{ messages|selectattr('role','equalto','user')|list }}{{ messages|selectattr("tool_calls","defined")|list|length }}
{{ (messages|last)['tool_calls'][0].function.arguments|tojson }}{{ messages[2].content is none }}{{ messages[2].content or '' }}
{{ [{'a':1},{'a':2}]|map(attribute='a')|sum }}{{ [[1,2],[3]]|map('length')|list }}{{ ['a','b']|map('upper')|map('lower')|list }}
{{ d | items | map('first') | list }}{{ d.items() | sort | first }}
"""

WHITESPACE = [
    '{{ "a\\tb\\n\\x41\\u00e9\\U0001F389\\\\\\\'\\"\\q\\101" }} {{ \'\\é\' }} {{ \'a\\\nb\' }}',
    '  {% if true %}\n    a\n  {% endif %}',
    '  {% if true %}\n    a\n  {% endif %}\nb\n{%- if true -%}   a   {%- endif -%}  c',
    '{%- if true -%}   a   {%- endif -%}  c\n  {%+ if true %}x{% endif +%}',
    '  {%+ if true %}x{% endif +%}\ny\n  {{ x }}',
    'y\n  {{ x }}\n  {{- x -}}\n  z\n{# c #}\nx',
    '  {{- x -}}\n  z\n{# c #}\nx',
    '  z\n{# c #}\nx\n  {#- c -#}  y {# d +#}\nz',
    'x\n  {#- c -#}  y {# d +#}\nz\n  {% raw -%}  a  {%- endraw %}\nb',
    'z\n  {% raw -%}  a  {%- endraw %}\nb\n  {% raw %}\n  a\n  {% endraw %}',
    '  {% raw %}\n  a\n  {% endraw %}\nb\na {%- raw -%} b {%- endraw -%} c',
    '  {% if true %}\n    a\n  {% endif %}\nb\n{%- if true -%}   a   {%- endif -%}  c\n  {%+ if true %}x{% endif +%}\ny\n  {{ x }}\n  {{- x -}}\n  z\n{# c #}\nx\n  {#- c -#}  y {# d +#}\nz\n  {% raw -%}  a  {%- endraw %}\nb\n  {% raw %}\n  a\n  {% endraw %}\nb\na {%- raw -%} b {%- endraw -%} c',
    '  {% if true %}\n    a\n  {% endif %}\nb\n{%- if true -%}   a   {%- endif -%}  c\n  {%+ if true %}x{% endif +%}\ny\n  {{ x }}\n  {{- x -}}\n  z\n{# c #}\nx\n  {#- c -#}  y {# d +#}\nz\n  {% raw -%}  a  {%- endraw %}\nb\n  {% raw %}\n  a\n  {% endraw %}\nb\na {%- raw -%} b {%- endraw -%} c',
    '\n  {% if true %}\n    a\n  {% endif %}\nb\n{%- if true -%}   a   {%- endif -%}  c\n\n',
    '  {% if true %}\r\n    a\r\n  {% endif %}\r\nb\r\n{%- if true -%}   a   {%- endif -%}  c\r\n  {%+ if true %}x{% endif +%}\r\ny\r\n  {{ x }}\r\n  {{- x -}}\r\n  z\r\n{# c #}\r\nx\r\n  {#- c -#}  y {# d +#}\r\nz\r\n  {% raw -%}  a  {%- endraw %}\r\nb\r\n  {% raw %}\r\n  a\r\n  {% endraw %}\r\nb\r\na {%- raw -%} b {%- endraw -%} c',
]


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %}: its body, as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def c_string(text):
    """A C literal, or several where it is long; three digits of an octal escape always end it."""
    out, line = [], ""
    for byte in text.encode():
        char = chr(byte)
        item = {"\n": "\\n", '"': '\\"', "\\": "\\\\", "?": "\\?"}.get(char)
        if item is None:
            item = char if 32 <= byte < 127 else "\\%03o" % byte
        line += item
        if len(line) > 100:
            out.append('"%s"' % line)
            line = ""
    out.append('"%s"' % line)
    return "\n     ".join(out)


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    print(f"/* Generated by template_cases.py from Jinja2 {jinja2.__version__}. Do not edit. */\n/* clang-format off */")
    print("static const char case_variables[] =\n     %s;\n" % c_string(json.dumps(VARIABLES, ensure_ascii=False)))
    print("static const struct {\n    const char *source, *text; /* NULL: it fails */\n    size_t length;\n} cases[] = {")
    for source in [line for line in TEMPLATES.split("\n") if line] + WHITESPACE:
        try:
            text = env.from_string(source).render(**VARIABLES)
        except Exception as error:  # whatever a template can raise
            print("    {%s, NULL, 0}, /* %s */" % (c_string(source), str(error).split("\n")[0].replace("*/", "* /")))
            continue
        assert " at 0x" not in text, source
        print("    {%s,\n     %s, %d}," % (c_string(source), c_string(text), len(text.encode())))
    print("};")


if __name__ == "__main__":
    main()
