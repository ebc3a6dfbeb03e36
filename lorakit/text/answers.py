"""What a chat model answers as a caption, or why it is none: without its thoughts, its manners and its markup, and never a refusal.
Nothing that a person wrote comes here."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorakit.text.cleaning import without_html
from lorakit.text.composing import RawCaption
from lorakit.text.phrases import BE, FINITE, PREPOSITIONS, RELATIVES, without_loose_end
from lorakit.text.words import spaced_tag, split_tags, without_repeats

LONGEST_TAG = 7  # words; what is longer is a sentence in a list of tags
FEWEST_WORDS = 2  # of a caption without tags
LOOP = 3  # times that an answer may say all it says before it is a loop that was stopped; one that ended by itself, twice as often


@dataclass(frozen=True)
class NoCaption:
    """In place of a `RawCaption`: one photo that could not be read, and why. The others go on."""

    reason: str


_THOUGHT = r"(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad|inner_?monologue|planning|plan)"
# How thoughts are marked: (opening, closing). What stands before the last closing mark is thought, whether it was opened or not.
THOUGHTS = (
    (rf"<(?:\w+:)?{_THOUGHT}>", rf"</(?:\w+:)?{_THOUGHT}>"),
    (r"<\|start_think(?:ing)?\|>", r"<\|end_think(?:ing)?\|>"),
    (rf"\[{_THOUGHT}\]", rf"\[/{_THOUGHT}\]"),
    (r"<\|channel\|?>\s*(?:thought|analysis)", r"<channel\|>|<\|channel\|>\s*final\s*<\|message\|>"),
    (r"◁think▷", r"◁/think▷"),
    (r"^\W*thinking\.{3}\s*\n", r"(?:^|\n)\W*\.{3}done thinking\.?"),  # as Ollama writes them
)
# Thoughts in words: a part that begins so ends where a caption is called one, or else with its paragraph.
THINKS = re.compile(
    r"^[\s*_#>]*(?:(?:step[ -]by[ -]step|visual|image|brief|my|internal|inner)\s+)?(?:reasoning|thoughts?|thinking|chain[ -]of[ -]thought|analysis|rationale|planning|plan)"
    r"(?: process| steps?)?(?:[\s*_]*[:：]|[*_]*\s*\n)",
    re.I,
)
THOUGHT_ENDS = re.compile(
    r"(?:^|\n)[\s*_#>-]*(?:(?:final|short|detailed|resulting)\s+)*(?:caption|description|answer|output|prose|response|result|summary|prompt)[*_]*\s*[:：][*_]*\s*(?=\S)"
    r"|(?:^|\n)\s*(?:#{1,6}|\*\*)\s*(?:final )?(?:caption|description|answer|output|prose|response)[ *]*\n|\.{3}done thinking\.?",
    re.I,
)
WRAPPED = re.compile(
    r"<(answer|caption|description|output|final|response|json|result|prose)>\s*(.*?)\s*(?:</\1>|$)|<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)",
    re.I | re.S,
)
TABLE = re.compile(r"^\s*\|(.+)\|\s*\n\s*\|[\s:|-]+\|\s*\n\s*\|(.+)\|", re.M)
BOXED = re.compile(r"^\$*\\boxed\{(?:\\text\{)?(.*?)\}{1,2}\$*$", re.S)
FENCE = re.compile(r"(?m:^)\s*(?:```|~~~)(?:[\w-]*[ \t]*\n|(?=\S+ ))(.*?)(?:\s*(?:```|~~~)|\Z)", re.S)
TURN = re.compile(
    r"<\|?im_(?:start|end)\|?>|<\|?(?:end_of_turn|eot_id|endoftext|end_of_text)\|?>|<(?:end|start)_of_turn>|</?s>|\[/?INST\]|<\|[a-z]{3,}(?:_[a-z]+)*\|>",
    re.I,
)
ROLE = re.compile(r"^\s*(?:<\|?assistant\|?>|assistant(?=\s*[:\n])|(?:ai|bot|gpt|model)(?=:)|model(?=\n))\s*:?\s*", re.I)
NEXT_TURN = re.compile(r"(?:\n|\s#{2,3})\s*(?:user|human|question)\s*(?::|\n).*", re.I | re.S)
TAGS_WRAPPED = re.compile(r"<(tags|keywords)>(.*?)(?:</\1>|$)|[\[(]\s*((?:hash ?)?tags|key ?words)\s*:\s*([^\])\n]*)[\])]\.?", re.I | re.S)
FINAL = re.compile(r"(?:^|[.!?:\n]\s*)[*_#\s]*final (?:answer|caption|description|version)[*_]*\s*:[*_]*\s*(?=\S)", re.I)

_KIND = r"(?:image|photo(?:graph)?|picture|scene|alt(?:ernative)?(?:[ -]text)?|visual)"
_NAMED = r"(?:caption|description|prompt|answer|summary|alt[ -]text|text|prose|sentences?|output|result|response)"
# Names that stand before a part of an answer and say nothing: 'Description:', '**Subject:**'.
CAPTION_LABEL = (
    r"(?:(?:final|positive|short|long|brief|concise|detailed|plain|suggested|revised|full|training|lora|flux|sdxl|danbooru|natural[ -]language)\s+)*"
    rf"(?:(?:{_KIND}\s+)?{_NAMED}(?:\s*\([^)\n]{{1,30}}\))?|{_KIND}(?:\s+\d{{1,2}})?)"
)
LABEL = (
    rf"(?:{CAPTION_LABEL}|part\s+\d|(?:main |primary )?subjects?|setting|scene|location|place|environment|background|foreground|lighting|light|composition|framing|colou?rs?(?: palette)?"
    r"|style|art style|medium|action|actions|pose|clothing|outfit|attire|appearance|details?|objects?|camera(?: angle)?|expression|perspective|texture"
    r"|observation|features|characters?|who|what|where|title|overview|visible(?: elements| objects| details)?"
    r"|(?:key|main|notable|visual)\s+(?:elements|details|features|objects|points))"
)
MOOD = r"(?:mood|atmosphere|tone|emotion|impression|overall(?: impression| mood)?|note|notes|disclaimer|interpretation|vibe|theme|reasoning|rationale|explanation|justification|confidence)"
HEADING = re.compile(
    rf"^\s*(?:#{{1,6}}\s*[^\n]*|\*\*[^*\n]{{1,60}}(?<![.!?])\*\*:?|__[^_\n]{{1,60}}(?<![.!?])__:?|(?:{LABEL}|{MOOD})\s*:|[-*_=~]{{3,}}|=+\s*{LABEL}\s*=+|(?:{_KIND} )?(?:caption|description|summary))\s*$",
    re.I,
)
LABELLED = re.compile(
    rf"^\s*(?:\*{{1,2}}|__)?(?:the )?(?P<name>{LABEL}|{MOOD})(?:\*{{1,2}}|__)?\s*:\s*(?:\*{{1,2}}|__)?\s*(?P<rest>\S.*)$", re.I
)
MOODY = re.compile(rf"^{MOOD}$", re.I)
BULLET = re.compile(r"^\s*(?:[-*•·–▪◦‣+]|\(?\d{1,2}[.)]|[a-h][.)])\s+")
OPTION = re.compile(
    r"^\s*(?:\*\*)?(?:option|caption|version|variant|alternative)\s*(?:\d{1,2}|[a-c])\s*(?:\([^)]*\))?\s*[:.)-]\s*(?:\*\*)?\s*", re.I
)

_TAGS = (
    r"(?:(?:suggested|relevant|image|photo|booru|danbooru|e621|style|visual|descriptive|comma[ -]separated|additional|visible)\s+)*"
    r"(?:hash ?tags?|tags?|key ?words?|tag list|labels|etiquetas|schlagw[oö]rter|mots[- ]cl[ée]s|标签|標籤|关键词|關鍵詞|タグ|теги)(?:\s+list)?"
)
# At the beginning of a line or of a sentence, and never in the middle of one: 'price tags: red' is a sentence.
TAGS = re.compile(
    rf"(?:(?:^|\n)[ \t]*(?:#{{1,6}}[ \t]*|[-*•][ \t]+|\(?\d{{1,2}}[.)][ \t]+)?|(?<=[.!?][\"'”’)])\s+|(?<=[.!?])\s+)"
    rf"(?:[*_\[`]{{0,3}}{_TAGS}(?:\s*\([^)\n]*\)|\s+(?:are|include))?[*_\]`]{{0,3}}[ \t]*(?::|：|=|–|-(?=\s))[*_`]{{0,3}}|[*_]{{2}}{_TAGS}[*_]{{2}}[ \t]*(?=\n)"
    rf"|#{{1,6}}[ \t]*{_TAGS}[ \t]*(?=\n)|\[{_TAGS}\](?=\s)|{_TAGS}[ \t]*(?=\n\s*(?:[-*•#]|\d+[.)])\s*\w))",
    re.I,
)

HASHTAGS = re.compile(r"(?:\s#[^\W_][\w-]*,?){2,}\s*$")

PREAMBLE = re.compile(
    r"^(?:(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|great|got it|understood|no problem|yes|hello|hi(?: there)?|thank(?:s| you)[^.!:\n]*)"
    r"(?:[!.,:]+|\s+[-–—])\s*"
    r"|i(?:'d|’d| would| will|'ll|’ll)\s+(?:be\s+)?(?:happy|glad|love|pleased)?\s*(?:to\s+)?(?:help|describe|provide|write|give|caption)[^.!:\n]*[.!:]\s*"
    r"|(?:based on|looking at|from|after (?:looking at|examining|analy[sz]ing))\s+(?:the|this|your)\s+(?:provided |given |uploaded |attached )?" + _KIND + r"[^,.:\n]{0,40}[,:]\s*"
    r"(?:here(?:'s|’s| is| are)[^:\n]{0,100}:\s*)?"
    r"|(?:here(?:'s|’s| is| are)|below is|the following is|this is|as requested,?(?: here(?:'s|’s| is))?)\s+(?:[\w'’,-]+\s+){0,6}?"
    r"\b(?:caption|description|summary|prompt|alt[ -]text|text|answer|breakdown|options|tags|sentence)s?\b[^:.\n]{0,80}(?::|\.?[ \t]*\n)\s*"
    r"|\"(?:caption|description)\"\s*:\s*"
    rf"|the following (?:caption|description|text|prompt) (?:describes|is for|fits|summari[sz]es)[^:.\n]{{0,40}}[:.]\s*"
    r"|here (?:you go|it is|goes)[.:!]\s*"
    r"|(?:[^.:\n\"]{0,60},\s*)?here(?:'s|’s| is| are)\s+(?:what|my|your|an attempt|one (?:paragraph|sentence|line)|(?:the |an? )(?:caption|description))\b[^:\n\"]{0,80}:\s*"
    rf"|(?:the|this) {_KIND} (?:can|could|may|might) be (?:described|captioned|summari[sz]ed)(?: as)?(?: follows)?:\s*|in (?:the|this) {_KIND}:\s*"
    rf"|(?:great|good|nice|interesting|lovely|beautiful) (?:question|request|{_KIND})!\s*|noted[.!:]\s*|as requested[:.]\s*|hm+[,.]+\s*"
    r"|(?:(?:an?|the|my|your|one|another)\s+)?(?:(?:possible|suitable|good|fitting|appropriate|suggested|accurate|simple|short|brief|concise|detailed|final|better)\s+)*"
    rf"(?:{_KIND}\s+)?(?:caption|description|prompt|alt[ -]text)(?:\s+(?:for|of)\b[^:.\n]{{1,60}}?)?(?:\s+(?:is|reads|(?:could|would|might|can|may) (?:be|read)))?(?: as follows)?[*_]{{0,2}}:[*_]{{0,2}}\s*(?=\S)"
    r"|(?:voici|hier ist|hier sind|aqu[ií] (?:está|tienes|hay)|ecco|aqui está|вот|以下是|这是)[^.:：\n]{0,80}[:：]\s*"
    rf"|(?:the )?{CAPTION_LABEL}[*_]{{0,2}}\s*[:=][*_]{{0,2}}\s*(?=\S))",
    re.I,
)  # fmt: skip
_ASKS = (
    r"(?:(?:could|can|would) you\b|please (?:let|tell|provide|upload|share|attach|note|specify|feel|try)|let me know|feel free|would you like|do you (?:want|need)|if you(?:'d|’d| would)? "
    r"(?:like|need|want|have|can|provide|share|upload|could)|i hope (?:this|that|it)|hope (?:this|that) helps|is there anything|you can (?:ask|also)|"
    r"happy to help|let me (?:describe|see|look|think|analy[sz]e|provide|start)|let(?:'|’)s (?:see|look|describe|analy[sz]e|start|break)|"
    r"(?:content|trigger) warning|warning:|this (?:caption|description|prompt) (?:is|should|can|could|aims|captures|was|provides|focuses|follows|avoids|includes|sticks|uses|keeps|describes|mentions|highlights|adheres|omits)|"
    r"these tags|note that|note:|\(?word count|\(?\d+ words?\)?\.?$|token count|as (?:you|per your)|the (?:caption|description) (?:above|is|was|avoids|follows))"
)
_I_CANNOT = (
    r"i(?:(?:'|’)m| am| was)?\s+(?:(?:\w+ly|must|have to|need to|do|also|still|just)\s+)*"
    r"(?:decline|forbidden|prevented|prohibited|pass on|refuse|refrain|abstain|can(?:'|’)?t|cannot|can not|couldn(?:'|’)t|could not|won(?:'|’)t|will not|don(?:'|’)t|not|didn(?:'|’)t|"
    r"haven(?:'|’)t|have not|have no|lack|unable|should not|shouldn(?:'|’)t|may not)\b"
)
# A clause of that kind behind something that is there: 'his face is hidden, so I cannot say who he is'.
CLAUSE_TO_THE_ASKER = re.compile(rf",\s+(?:so|which|and|but|therefore)\s+{_I_CANNOT}[^.;\"“]*", re.I)
# How an answer in another language begins that is a refusal.
_REFUSED_ELSEWHERE = (
    r"es tut mir leid|tut mir leid|entschuldigung|leider (?:kann|darf)|ich kann (?:dieses|das|diese|leider|nicht|ihnen|dir)|(?:je suis )?désolée?\b|je (?:ne peux|regrette)|"
    r"malheureusement|lo siento|lamento|disculpa|no puedo|mi dispiace|purtroppo|non posso|desculpe|sinto muito|infelizmente|não posso|het spijt me|sorry, ik|ik kan (?:deze|dit|niet|helaas)|"
    r"pardon, je|je suis (?:dans l|incapable)|no me es posible|(?:ni modo, )?lo lamento|jeg kan|desværre|valitettavasti|anteeksi|omlouvám|bohužel|sajnálom|sajnos|îmi pare|din păcate|"
    r"xin lỗi|maaf\b|ขออภัย|ขอโทษ|क्षमा|मुझे खेद|माफ़|[^।]*क्षमा करें|λυπάμαι|συγγνώμη|סליחה|"
    r"helaas|przepraszam|niestety|nie mogę|tyvärr|jag kan inte|beklager|üzgünüm|maalesef|извините|простите|к сожалению|я не могу|مع الأسف|عذراً|آسف|لا أستطيع|"
    r"很?抱歉|对不起|對不起|不好意思|我(?:无法|無法|不能)|无法(?:描述|识别|查看)|申し訳|すみません|ごめん|죄송|미안|이미지를 볼 수 없"
)
# What is said to the one who asks and not of the photo: a sentence that begins so is none of a caption.
TO_THE_ASKER = re.compile(
    r"^(?:(?:but|and|so|however|unfortunately|instead|therefore|that said|nevertheless|sorry)[,.]?\s+)*(?:"
    r"i(?:'|’)?m (?:sorry|unable|not able|afraid|just|only|here|happy|an? )|i am (?:sorry|unable|not able|afraid|just|only|here|happy|an? )|"
    r"i (?:apologi[sz]e|regret)|my apologies|apologies|sorry\b(?!-)|"
    rf"(?:no|regrettably|honestly),? {_I_CANNOT}|{_I_CANNOT}|(?:due to|for|because of|given|in (?:line|accordance|keeping) with|out of|to (?:protect|respect|comply)|while|although|though|since)\b[^.\"“:]{{0,80}}?\b{_I_CANNOT}|"
    rf"[^.\"“:]{{0,60}}\bmy (?:\w+ ){{0,2}}(?:guidelines|polic(?:y|ies)|programming|instructions)\b|"
    r"[^.\"“:]{0,60}(?:n(?:'|’)t|\bnot|\bnothing)\b[^.\"“:]{0,20}\bi(?: can| could| am (?:able|allowed|permitted)|(?:'|’)m (?:able|allowed|permitted))\b|"
    r"(?:this|that|it|the request)\b[^.\"“]{0,30}\bviolat(?:es|ing)\b[^.]{0,30}\b(?:polic|guideline|terms|rules)|cannot (?:comply|fulfil|process|proceed|view|see)|"
    r"(?:request|response|content|output) (?:was |is |has been )?(?:blocked|rejected|filtered|denied)\b|"
    r"generated by (?:an? )?ai\b|source: \w+\W*$|"
    r"i(?:(?:'|’)m| am) (?:\w+ly )?(?:sorry|afraid|designed|programmed|trained|built|ready)\b|i(?:(?:'|’)d| would) (?:rather|prefer)\b|"
    r"(?:what|how|which|where|when) (?:would|can|may|should|do|could) (?:you|i|we)\b|(?:first|next|then|wait),? (?:i|let me|let(?:'|’)s)\b|"
    rf"(?:the |this |your )?(?:(?:provided|given|uploaded|attached) )?{_KIND}(?: file)? (?:is|appears|seems)(?: to be)?(?: completely| entirely)? "
    rf"(?:blank|empty|corrupt(?:ed)?|missing|broken|unavailable|damaged)\b|this (?:is|appears to be|seems to be) an? (?:blank|empty|corrupt(?:ed)?|broken) {_KIND}\b|"
    rf"(?:\d{{3}}:? )?(?:(?:{_KIND}|file|page) )?not found\b|"
    rf"it (?:seems|looks|appears)(?: like| that| as (?:if|though))? (?:the|your|that) {_KIND} (?:did|didn(?:'|’)t|was|wasn(?:'|’)t|hasn(?:'|’)t|failed)\b|"
    r"you(?:'|’)?(?:ve| have|) ?(?:haven(?:'|’)t|not|did(?:n(?:'|’)t| not)|forgot)\b|(?:error|exception|traceback)\s*[:(-]|failed to (?:load|process|decode|read)\b|"
    r"there was an? (?:error|problem|issue)\b|the user (?:wants|asks|asked|is asking|would like|needs|has (?:asked|given|provided|uploaded)|provided|uploaded)\b|"
    rf"{_REFUSED_ELSEWHERE}|"
    r"i (?:can(?:'|’)?t|cannot|can not|could(?:n(?:'|’)t| not)|won(?:'|’)t|will not|don(?:'|’)t|do not|am not|must decline|have to decline|need to|would need|"
    r"can (?:only|help|offer|provide|describe|assist|try|tell)|could (?:describe|help|provide)|decline|refuse|prefer not|should not|shouldn(?:'|’)t|have no)|"
    r"as an? (?:ai|artificial|language|vision|large|text|assistant|multimodal)\b|being an ai|"
    r"(?:there (?:is|was|are)|i see) no (?:image|photo|picture)s?\b|no (?:image|photo|picture)s? (?:was|is|has|were|could|provided|attached|uploaded|available|found)|"
    r"(?:the|this|your) (?:image|photo|picture|request|content)[^.]{0,40} (?:was not|wasn(?:'|’)t|did not|didn(?:'|’)t|could not|couldn(?:'|’)t|cannot be|can(?:'|’)t be|"
    r"violates|goes against|failed to|is not (?:available|provided|attached|visible to me))|"
    r"it (?:seems|looks|appears)(?: like| that| as (?:if|though))? (?:you|the image (?:was|is|did|has)|there (?:is|was) no|no image|an? (?:image|error))|"
    r"unable to|not able to|cannot (?:assist|help|identify|describe|provide)|can(?:'|’)t (?:assist|help|identify|describe|provide)|"
    r"(?:identifying|describing) (?:real )?(?:people|individuals|persons)|this (?:content|request|image) (?:may|might|violates|contains content)|"
    rf"{_ASKS})",
    re.I,
)
# A refusal that goes on with what is there: 'I can't say who he is, but the photo shows a man'.
GOES_ON = re.compile(
    r"^[^.;:]*\bi can\b[^.;:]{0,60}:\s+(?=\S+ \S+ \S+)|^(?:while|although|though)\b[^,.;]*,\s+(?:i can (?:see|tell you|say|describe)(?: that)?\s+)?"
    r"(?=(?:an?|the|this|there|he|she|it|they|two|three|several|in)\s)|^[^.;]*?(?:(?:,|;)\s*(?:but|however,?|though)|;|\.\s*however,)\s+(?:i can (?:see|tell you|say|describe)(?: that)?\s+|i see\s+|what i can see is\s+)?"
    r"(?=(?:an?|the|this|there|he|she|it|they|two|three|several|in)\s)",
    re.I,
)
# Sentences about what a picture does to its beholder. No picture shows them.
_FELT = (
    r"(?:atmosphere|mood|sense|feelings?|ambian?ce|vibe|impression|depth|warmth|charm|tranquill?ity|serenity|nostalgia|drama|elegance|interest|dynamism|emotions?|"
    r"aesthetic|beauty|calm(?:ness)?|mystery|harmony|intimacy|realism|touch|composition|tone|appeal|essence|spirit|personality)"
)
_STIRS = r"(?:convey|evok|exud|radiat|suggest|creat|add|enhanc|contribut|giv|lend|invit|reflect|emphasi[sz]|highlight|captur)"
IMPRESSION = re.compile(
    r"^(?:overall|in summary|in conclusion|in essence|altogether|all in all|taken together|to summari[sz]e)\b|"
    rf"^(?:the|this|its|their|all)\s+(?:[\w'’-]+\s+){{1,6}}?(?:(?:both|all|together|also|beautifully|perfectly)\s+)*{_STIRS}\w*\b[^.]{{0,60}}?\b{_FELT}\b|"
    r"^(?:an? )?(?:overall )?(?:sense|feeling|air|mood|atmosphere) of [^.]{0,40}\b(?:pervades?|fills?|permeates?|surrounds?|hangs?|prevails?)\b|^the (?:overall|general) (?:effect|result|feel|look)\b|"
    r"^(?:the|this)\s+(?:(?:overall|general)\s+)?(?:mood|atmosphere|tone|vibe|ambian?ce|feeling|aesthetic)\b(?=\s+(?:is|are|was|feels?|seems?|appears?|and|here|conveys?|"
    rf"evokes?|remains?|suggests?|created|(?:of|in) (?:the|this) (?:{_KIND}|composition))\b|,)|^it (?:conveys|evokes|creates|gives) |"
    r"^(?:the|this|its|their)\b[^.]{0,80}\b(?:draw|guid|lead|invit)(?:e?s|ing)?\s+(?:in )?(?:the )?(?:viewer|eye|attention|gaze)\b|"
    rf"^(?:it|the {_KIND}|this {_KIND}) is (?:(?:very|highly|of|extremely|quite|so|well|and|both|rich in)[ -])*(?:detailed|high[ -]quality|beautiful|stunning"
    r"|composed|striking|captivating|sharp and clear|clear and sharp|high[ -]resolution|vibrant|professional|details?)(?:(?:,| and)? [\w -]+)?[.!]?$|"
    rf"^(?:the|this)\s+(?:overall\s+)?{_KIND}\s+(?:\w+\s+)?(?:feels|speaks|invites|tells|is one of|has an? [\w-]+ (?:feel|mood|atmosphere))\b",
    re.I,
)
_ABSENT = (
    r"(?:(?:other|visible|additional|obvious|discernible|any|readable|legible)\s+)*(?:text|people|persons?|humans?|objects?|watermarks?|signs?|logos?|words|"
    r"letters|animals|details|elements|writing|figures|subjects)"
)
# What is not there teaches its word all the same.
NEGATED = re.compile(
    rf"^(?:the|this) {_KIND} (?:does not|doesn(?:'|’)t) (?:contain|show|have|include|feature|depict)\b|^(?:also,? )?there (?:is|are) no {_ABSENT}\b|"
    rf"^no {_ABSENT}\b[^.]*\b(?:is|are|can be) (?:visible|present|seen|shown|discernible)\b",
    re.I,
)
GUESS = r"(?:(?:(?:most|more|very|quite) )?(?:likely(?! to\b)|probably)|possibly|perhaps|presumably|maybe|potentially|supposedly|seemingly|apparently|conceivably)"
GUESSED = re.compile(
    rf"^(?:there (?:may|might|could) (?:also )?be\b|it (?:may|might|could) (?:also )?be\b|this (?:may|might|could) be\b|{GUESS}\b|judging (?:by|from)\b|"
    rf"(?:it|this|that|these|he|she|they|the \w+(?: \w+){{0,2}}) (?:is|are|was|were) {GUESS} (?:an?|the|in|at|from|of|on|taken|located|part|because|due|late|early|during)\b|"
    rf"(?:it|this|he|she|they|these|the \w+(?: \w+)?) (?:is|are|was|were) {GUESS}(?: \w+){{1,2}}[.!]?$|(?:one|some|all|both|most) of (?:them|the \w+) (?:may|might|could) |"
    rf"(?:it|he|she|they|these|the \w+(?: \w+)?) looks? (?:like|as if|as though) (?:it|they|he|she) (?:may|might|could)\b|"
    rf"it is (?:possible|likely|unclear|difficult|hard|not clear)\b|"
    r"it(?:'s|’s) (?:possible|likely|unclear|difficult|hard|not clear)\b|one (?:may|might|could) |(?:i|we|one)(?:'d|’d| would| can| could)? (?:think|believe|guess|suspect|assume|suppose|imagine|infer|say)\b|(?:he|she|they|the \w+(?: \w+)?) (?:may|might|could) (?:also )?be\b)",
    re.I,
)
_GOES_ON = "|".join((*sorted(FINITE | PREPOSITIONS | BE | RELATIVES), r"\w+ing", "and", "or"))
_CLAUSE = r"[^,.;:()]*"
GUESSES = (
    (re.compile(rf",?\s+(?:thus |further |thereby )?{_STIRS}ing\b[^.;]{{0,60}}?\b{_FELT}\b[^.;]*", re.I), ""),  # what it stirs is no more to be seen
    (re.compile(r",\s+one of (?:whom|which|them) (?:may|might|could) (?:also )?be\b" + _CLAUSE + ",?", re.I), ""),
    (re.compile(r"[,;]?\s+(?:and|but)\s+(?:it|he|she|they|there)\s+(?:may|might|could)\b[^,.;]*", re.I), ""),
    (re.compile(rf"\s*\((?:{GUESS}|maybe|or)\b[^)]*\)", re.I), ""),
    (re.compile(rf",?\s+(?:or|and)\s+{GUESS}\s+\w+(?: \w+){{0,4}}?(?=\s+(?:{_GOES_ON})\b|[,.;:()]|$)", re.I), ""),
    (re.compile(r",?\s+(?:which|that|who) (?:may|might|could) (?:also )?be\b" + _CLAUSE, re.I), ""),
    (re.compile(r",?\s+(?:suggesting|indicating|implying|hinting|suggestive of|indicative of|as if to suggest)\b[^.;]*", re.I), ""),
    (re.compile(rf",\s+(?:although|though)?\s*(?:it is |it's |it’s )?(?:{GUESS}|may be|might be|could be)\s+{_CLAUSE}(?:,|(?=[.;]|$))", re.I), ""),
    (re.compile(rf"\b(?:in |at |on )?what (?:is|appears to be|seems to be|looks like|may be|might be|could be)(?: {GUESS})?\s+(?=(?:an?|the)\b)", re.I), "@"),
    (re.compile(r"\b(?:may|might|could) be (?=\w+ing\b)", re.I), "is "),
    (re.compile(r"\b(?:seems?|appears?) to be\b", re.I), "is"),
    (re.compile(rf"\s*\b{GUESS}\b(?=\s)", re.I), ""),
)  # fmt: skip
NO_TAG = re.compile(
    r"^(?:no|without|not|none|n/?a|null|unknown|unclear|nothing)\b(?! (?:entry|parking|smoking|humans|pants|shirt|bra|panties|shoes|eyes|mouth|nose|socks|legwear|hat)$)"
    r"|^rating\s*:|^rating\s*[_ ]\s*(?:safe|general|sensitive|questionable|explicit|[sqeg])\b|^(?:sfw|nsfw|safe for work|not safe for work)$|^(?:etc|and so on|and more)\b|^(?:safe|score|source)[:_]",
    re.I,
)
SAYS = re.compile(rf"\w \b(?:{'|'.join(sorted(FINITE | BE | {'has', 'have'}))}|{_STIRS}e?s)\b \w", re.I)  # a sentence among tags
NO_WORDS = frozenset(
    "yes nan done okay understood noted ready hello none the unknown sorry nothing here null error undefined blank image photo".split()
)
SENTENCES = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(A-Z])")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "「": "」", "„": "“"}


def read_answer(answer: str, is_cut: bool = False) -> RawCaption | NoCaption:
    """The sentence and the tags of an answer; of one that `is_cut` at its end, the last tag or phrase is left out. `NoCaption` where it
    is a refusal, a thought, a guess, or nothing."""
    text = without_thoughts(answer)
    if text is None:
        return NoCaption("it only thought, and wrote no caption")
    text = _unwrapped(text)
    if not re.search(r"\w", text):
        return NoCaption("an empty answer" if not answer.strip() else "an answer without words")
    found = _from_json(text)
    if isinstance(found, NoCaption):
        return found
    sentence, tags = found or _parts(text)
    loose = is_cut and not found
    if loose and tags:
        tags = tags[:-1]
    kept, refused = _of_the_photo(sentence)
    if loose and not tags:
        kept = without_loose_end(kept)
    before = kept
    kept = _decided(kept)
    if _is_loop(before, kept, is_cut):
        return NoCaption(f"it says one thing again and again: {kept[:60]!r}")
    if not kept and not tags and (headed := re.match(r"^(?:#{1,6}\s+|\*\*|__)(\w+(?:\s[^\s*]+){2,})[\s*_]*$", text)):
        kept = headed.group(1)  # a heading is all there is
    if not tags and (tags := _only_tags(kept)):
        kept = ""
    if _words_in(kept) < FEWEST_WORDS and not tags and not _is_word(kept):
        if refused:
            return NoCaption(f"it refused: {refused[:80]!r}")
        return NoCaption(
            f"it only guessed: {before[:80]!r}" if GUESSED.match(before) else f"no caption in its answer: {' '.join(answer.split())[:80]!r}"
        )
    return RawCaption(kept, tuple(tags), cut=is_cut)


def _words_in(text: str) -> int:
    """How many words; what is written without gaps counts two letters as one."""
    return len(text.split()) + len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff]", text)) // 2


def without_thoughts(answer: str) -> str | None:
    """An answer behind its last thought; None where a thought was begun and never ended."""
    answer = re.sub(r"&lt;(/?[\w:]+)&gt;", r"<\1>", answer)
    for opening, closing in THOUGHTS:
        ends = list(re.finditer(closing, answer, re.I))
        begun = [match.start() for match in re.finditer(opening, answer, re.I)]
        if begun and (not ends or begun[-1] > ends[-1].start()):
            head = answer[: begun[-1]].strip()
            return head if not ends and len(head.split()) > 3 else None
        if ends:
            answer = answer[ends[-1].end() :]
            if not answer.strip():
                return None
    return _behind_thoughts_in_words(answer) if THINKS.match(answer) else answer


def _behind_thoughts_in_words(answer: str) -> str | None:
    ends = list(THOUGHT_ENDS.finditer(answer))
    if ends:
        return answer[ends[-1].end() :] if answer[ends[-1].end() :].strip() else None
    first, *paragraphs = re.split(r"\n\s*\n", answer.strip())
    while paragraphs and BULLET.match(paragraphs[0]):  # the steps of a thought
        paragraphs.pop(0)
    if not paragraphs and re.match(r"\W*(?:\w+ )?analysis", first, re.I):  # of the picture, so its description
        return THINKS.sub("", first)
    return "\n\n".join(paragraphs) or None


def _unwrapped(text: str) -> str:
    """Without marks of turns, tags around the answer, fences, HTML, and the role it speaks in."""
    if "\\n" in text and "\n" not in text:
        text = text.replace("\\n", "\n")
    text = NEXT_TURN.sub("", ROLE.sub("", TURN.sub("\n", text).strip()))
    listed = [match.group(2) or match.group(4) or "" for match in TAGS_WRAPPED.finditer(text)]
    text = TAGS_WRAPPED.sub("", text)
    if match := WRAPPED.search(text):
        text = match.group(2) if match.group(2) is not None else match.group(3)
    if match := FENCE.search(text):
        outside = FENCE.sub("\n", text).strip()
        text = match.group(1) if len(match.group(1).split()) >= 2 or not outside else text
    if (match := TABLE.search(text)) and len(names := match.group(1).split("|")) == len(cells := match.group(2).split("|")):
        text = "\n".join(f"{name.strip(' *')}: {cell.strip()}" for name, cell in zip(names, cells, strict=True))
    if match := BOXED.match(text.strip()):
        text = match.group(1)
    text = re.sub(r"(?m)^\s*>\s?(?=\w)", "", without_html(text).replace("\u200b", ""))
    if (finals := list(FINAL.finditer(text))) and len(text[finals[-1].end() :].split()) > 2:
        text = text[finals[-1].end() :]
    return "\n".join((_unquoted(text.strip()), *([f"Tags: {', '.join(listed)}"] if any(listed) else [])))


def _unquoted(text: str) -> str:
    """Without quotes around all of it."""
    text = text.strip()
    if match := re.fullmatch(r"(\"{2,3}|'{2,3})(?!\1)(.+?)\1\.?", text, re.S):
        text = match.group(2).strip()
    while len(text) > 2 and (closing := _QUOTES.get(text[0])) and text.rstrip(".").endswith(closing):
        inner = text.rstrip(".")[1:-1]
        if text[0] in inner or closing in inner.replace("'", "") * (closing != "’"):
            break
        text = inner.strip()
    return text


_JSON_TAGS = r"tag|keyword|label|object"
_JSON_PROSE = r"caption|description|text|sentence|prompt|answer|summary|scene|alt|content|prose|output|result|response"
_JSON_NAME = re.compile(rf"{_JSON_TAGS}|{_JSON_PROSE}|^{MOOD}$", re.I)


def _from_json(text: str) -> tuple[str, list[str]] | NoCaption | None:
    """The sentence and tags of an answer in JSON; None for one that is none."""
    start = re.search(r"[{\[]\s*[\"'{\[]|\{\s*\w+\s*:\s*[\"\[{]", text)
    if not start or (start.start() > 0 and not re.fullmatch(r"[^{\[]{0,120}[:\n]\s*", text[: start.start()])):
        return None
    try:
        entry, _ = json.JSONDecoder(strict=False).raw_decode(text[start.start() :])
    except (ValueError, RecursionError):
        entry = _of_python(text[start.start() :])
    if entry is None:  # names without quotes, a comma too many
        try:
            mended = re.sub(r",\s*(?=[}\]])", "", re.sub(r"([{,]\s*)([A-Za-z_]\w*)(?=\s*:)", r'\1"\2"', text[start.start() :]))
            entry, _ = json.JSONDecoder(strict=False).raw_decode(mended)
        except (ValueError, RecursionError):
            entry = None
    if entry is None:
        pairs = re.findall(r'"(\w+)"\s*:\s*"((?:[^"\\]|\\.)*)"', text)
        entry = dict(pairs)
        if not entry:
            return NoCaption("half of a JSON text") if text.lstrip()[:1] == "{" else None
    if isinstance(entry, dict) and (refused := entry.get("error") or entry.get("refusal")) and not entry.get("caption"):
        return NoCaption(f"it refused: {str(refused)[:80]!r}")
    sentences, tags = [], []
    for path, value in _leaves(entry):
        name = path if _JSON_NAME.search(path.rsplit("/", 1)[-1]) is None else path.rsplit("/", 1)[-1]
        if re.search(_JSON_TAGS, name, re.I) or (not name and len(value.split()) <= 3):
            tags += split_tags(value)
        elif not name or re.search(_JSON_PROSE, name, re.I):
            sentences.append(value if value.rstrip().endswith((".", "!", "?")) else f"{value.rstrip()}.")
    if not sentences and not tags:
        sentences = [f"{value.rstrip('.')}." for name, value in _leaves(entry) if not MOODY.match(name.rsplit("/", 1)[-1])]
    if not sentences and not tags:
        return NoCaption("a JSON text without a caption")
    return " ".join(sentences[:1] if len(set(sentences)) > 1 and isinstance(entry, list) else dict.fromkeys(sentences)), _clean_tags(tags)


def _of_python(text: str) -> Any:
    """A mapping or list as Python prints it; None for anything else."""
    try:
        found = ast.literal_eval(text[: max(text.rfind("}"), text.rfind("]")) + 1])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, (dict, list)) else None


def _leaves(entry: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(names from the outermost on, joined by '/', text) of all texts in a JSON value."""
    if isinstance(entry, str) and entry.strip():
        yield name, " ".join(entry.split())
    elif isinstance(entry, dict):
        for key, value in entry.items():
            yield from _leaves(value, f"{name}/{key}" if name else str(key))
    elif isinstance(entry, list):
        for value in entry:
            yield from _leaves(value, name)


def _parts(text: str) -> tuple[str, list[str]]:
    """(prose, tags) of an answer in words."""
    head, *rest = TAGS.split(text, maxsplit=1)
    tags: list[str] = []
    if not rest and (match := HASHTAGS.search(text)):
        head, rest = text[: match.start()], [match.group()]
    if rest:
        listed, after = _tag_block(rest[0])
        tags, head = _clean_tags(listed), f"{head}\n{after}"
    head = _without_preamble(head.strip())
    last = re.fullmatch(r"(.*[.!?][\"'”’)*]*)\s*\n\s*(?:part\s+\d\s*:\s*)?([^-*•\n][^\n]*)", head, re.S | re.I)
    if not rest and last and not _ends(last[2]) and (unnamed := _only_tags(_plain(last[2]))):
        head, tags = last[1], unnamed  # in a line of their own, without a name
    if not rest and not tags:
        lines = head.rstrip().split("\n")
        start = next(
            (
                n
                for n in range(len(lines))
                if all(re.fullmatch(r"[a-z0-9][^.:!?,]*", line.strip()) and len(line.split()) <= 4 for line in lines[n:])
            ),
            0,
        )
        if start and len(lines) - start >= 3 and any(map(_ends, lines[:start])):  # one below the other
            head, tags = "\n".join(lines[:start]), _clean_tags(lines[start:])
    options = [OPTION.sub("", line) for line in head.splitlines() if OPTION.match(line)]
    if options:
        head = next((option for option in options if len(option.split()) > 1), head)
    lines = [line for line in head.splitlines() if line.strip()]
    if lines and BULLET.match(lines[0]):  # numbers that go on within the line
        lines = [re.sub(r"(?<=[.!?])\s+\(?\d{1,2}[.)]\s+(?=[A-Z])", " ", line) for line in lines]
    after = [*lines[1:], ""]
    lines = [
        line for line, then in zip(lines, after, strict=False) if not (BULLET.match(then) and re.fullmatch(r"\s*[^.!?]{1,40}:\W*", line))
    ]
    bullets = [BULLET.sub("", line) for line in lines if BULLET.match(line)]
    if (
        len(bullets) > 1
        and not tags
        and all(len(_plain(line).split()) <= LONGEST_TAG and not _ends(line) and ":" not in line for line in bullets)
    ):
        tags, lines = _clean_tags(bullets), [line for line in lines if not BULLET.match(line)]
    elif (
        len(bullets) > 1
        and all(_ends(line) and len(line.split()) > LONGEST_TAG for line in bullets)
        and re.search(r"caption|option|version", text[:120], re.I)
    ):
        lines = bullets[:1]  # several to choose from
    return " ".join(filter(None, map(_line, lines))), tags


def _line(line: str) -> str:
    """A line without its bullet, its heading and its label."""
    if HEADING.match(line):
        return ""
    line = BULLET.sub("", line)
    if HEADING.match(line):
        return ""
    while match := LABELLED.match(line):
        if MOODY.match(match["name"]):
            return ""
        line = match["rest"]
        line = line if _ends(line) or "," in line[-2:] else f"{line}."
    return _unquoted(_plain(_without_preamble(line)))


def _plain(text: str) -> str:
    """Without the stars and ticks of Markdown; `>_<` and `^_^` stay."""
    text = re.sub(r"!?\[([^\]\n]+)\]\([^)\s]*\)", r"\1", text)
    text = re.sub(r"\*{1,3}(?=\S)([^*\n]+?)(?<=\S)\*{1,3}", r"\1", text)
    text = re.sub(r"(?<!\w)_{1,2}(?=[^\W_])([^_\n]+?)(?<=[^\W_])_{1,2}(?!\w)", r"\1", text)
    return re.sub(r"`([^`\n]+)`", r"\1", text).replace("**", "").strip()


def _ends(line: str) -> bool:
    return re.search(r"[.!?。！？][\"'”’)*]*\s*$", line) is not None


def _tag_block(text: str) -> tuple[list[str], str]:
    """(tags, prose that stands behind them)."""
    listed, after, gap, behind = [], [], False, False
    for line in text.strip("\n").split("\n"):
        plain = _plain(BULLET.sub("", line))
        if not plain:
            gap = bool(listed)
            continue
        commas = len(re.split(r"[,;#]", plain)) - 1
        is_prose = commas < 2 and len(plain.split()) > LONGEST_TAG or (gap and _ends(plain) and len(plain.split()) > 3 and commas < 3)
        behind = behind or (bool(listed) and (is_prose or HEADING.match(line) is not None))
        if behind or LABELLED.match(line) or TO_THE_ASKER.match(plain):
            after.append(line)
        else:
            listed.append(plain)
    # The list goes on to a full stop only where another sentence follows on its line.
    if len(listed) == 1 and (match := re.match(r"(.*?,[^.]*)\.\s+(?=[A-Z])(.*)", listed[0])) and len(match[2].split()) > 3:
        listed, after = [match[1]], [match[2], *after]
    parts = [part for line in listed for part in (re.findall(r"#(\w[\w-]*)", line) if line.count("#") > 1 else _listed(line))]
    return parts, "\n".join(after)


def _listed(line: str) -> list[str]:
    if line[:1] + line[-1:] in ("[]", "()", "{}"):
        line = line[1:-1]
    numbered = re.split(r"(?:^|\s)\d{1,2}[.)]\s+", line)
    if len(numbered) > 2:
        return [part for part in numbered if part.strip()]
    if line.count(" - ") > 1 and "," not in line:
        return line.split(" - ")
    if re.fullmatch(r"[^\s,;/]+(?:/[^\s,;/]+){2,}", line.strip()):
        return line.split("/")
    parts = [part for piece in re.split(r";(?=\s)|(?<=[^\W_]);|[•|\n]|、|，|(?<=\w)\.(?=\s|$)", line) for part in split_tags(piece)]
    return parts if len(parts) > 1 or "_" not in line or " " not in line.strip() else line.split()


def _clean_tags(tags: list[str]) -> list[str]:
    """Tags without their dress; what is none (`no people`, `rating:safe`, a sentence) goes."""
    plain = [_clean_tag(tag) for tag in tags]
    return without_repeats(
        [spaced_tag(tag) for tag in plain if tag and len(tag.split()) <= LONGEST_TAG and not _is_no_tag(tag.replace("_", " "))]
    )


def _clean_tag(tag: str) -> str:
    tag = re.sub(r"^\s*<(\w[\w .'-]{2,})>\s*$", r"\1", tag)
    tag = re.sub(r"^\s*[\[{(](?=[^\])}]*$)|(?<=\w)[\]}]\s*$", "", _plain(tag))  # of a list in brackets
    tag = re.sub(r"^\s*(?:#(?=\w)|[-*•]\s+|and\s+)|\s*\(\d?\.\d+\)$|(?<=[^\W_]|[)\]\"'”])[\s.,;*]+$|^[\s*]+(?=\w)", "", tag)
    return re.sub(r"^(?:an?|the)\s+(?=\w)", "", _unquoted(tag), flags=re.I).strip()


def _is_no_tag(tag: str) -> bool:
    return NO_TAG.match(tag) is not None or GUESSED.match(tag) is not None or SAYS.search(tag) is not None


_BEGIN_PROSE = PREPOSITIONS | frozenset(
    "one two three four five each both all most many several none some others another his her its their".split()
)


def _only_tags(text: str) -> list[str]:
    """The tags of an answer that is nothing but a list of them."""
    parts = [part.strip() for part in text.strip(" .,").split(",")]
    prose = (
        text[:1].isupper()
        and text.rstrip().endswith(".")
        and any(part.split()[:1] and part.split()[0].lower() in _BEGIN_PROSE for part in parts[1:])
    )
    short = not prose and all(
        part and len(part.split()) <= 4 and not re.match(r"(?:an?|the|and|with|in|on|at|while|who|which)\b", part, re.I) for part in parts
    )
    is_list = (
        len(parts) >= 3 and short and not re.search(r"[.!?]\s", text) and not re.search(r"\b(?:is|are|sits?|stands?|has|wears?)\b", text)
    )
    return _clean_tags(parts) if is_list else []


def _without_preamble(text: str) -> str:
    before = None
    while before != text:
        before, text = text, PREAMBLE.sub("", text.lstrip(" *_"), count=1) if PREAMBLE.match(text.lstrip(" *_")) else text
    return text


def _of_the_photo(text: str) -> tuple[str, str]:
    """(the sentences that speak of the photo, each once; the first that speaks to the asker)."""
    kept: dict[str, str] = {}
    refused = ""
    for sentence in _sentences(_unquoted(" ".join(text.split()))):
        said = sentence.strip()
        if TO_THE_ASKER.match(said):
            refused = refused or said
            if not (match := GOES_ON.match(said)):
                continue
            said = _line(said[match.end() :])
            said = said[:1].upper() + said[1:]
        if (shorter := CLAUSE_TO_THE_ASKER.sub("", said)) != said:
            if len(shorter.split()) < 6:
                refused = refused or said
                continue
            said = shorter
        said = re.sub(r";\s+([^;.]+)", lambda clause: "" if TO_THE_ASKER.match(clause.group(1)) else clause.group(), said)
        if re.search(r"\w", said):
            kept.setdefault(re.sub(r"\W+", " ", said).strip().casefold(), said)
    if (
        len(kept) > 1
        and not _ends(last := list(kept)[-1])
        and not _ends(kept[last])
        and any(other.startswith(last) for other in list(kept)[:-1])
    ):
        del kept[last]  # begun once more, and not ended
    rest = [said for said in kept.values() if not IMPRESSION.match(said) and not NEGATED.match(said)]
    return " ".join(rest), refused


def _sentences(text: str) -> list[str]:
    """The sentences of a text; a full stop within quotes ends none."""
    found, start = [], 0
    for match in SENTENCES.finditer(text):
        said = text[start : match.start()]
        if said.count('"') % 2 == 0 and said.count("“") <= said.count("”") + text[match.start() : match.end()].count("”"):
            found.append(text[start : match.end()].strip())
            start = match.end()
    return [*found, text[start:]]


def _decided(text: str) -> str:
    """Without guesses: sentences and clauses that only may be true."""
    kept = []
    for sentence in _sentences(text):
        if GUESSED.match(sentence.strip()):
            continue
        for pattern, by in GUESSES:
            sentence = pattern.sub(lambda match, by=by: _preposition(match.group()) if by == "@" else by, sentence)
        kept.append(re.sub(r"\s+([,.;:!?])(?=\s|$)", r"\1", " ".join(sentence.split())))
    return " ".join(part[:1].upper() + part[1:] if number else part for number, part in enumerate(filter(None, kept)))


def _preposition(text: str) -> str:
    first = text.split()[0].lower()
    return f"{first} " if first in ("in", "at", "on") else ""


def _is_loop(before: str, after: str, is_cut: bool) -> bool:
    """Whether an answer that was stopped says a few words over and over."""
    words = re.findall(r"\w+", after.casefold())
    return len(words) >= (24 if is_cut else 40) and len(set(words)) * (LOOP if is_cut else 2 * LOOP) < len(words)


def _is_word(text: str) -> bool:
    """One word may be a caption: 'Skyline.'; a bare 'Yes' is not."""
    return bool(re.fullmatch(r"[^\W\d_]{3,}\.?", text.strip())) and text.strip(" .").casefold() not in NO_WORDS
