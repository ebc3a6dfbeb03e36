"""How chat models word what is no part of a caption: marks of thought, wrappers and labels, words to the one who asks, impressions, guesses.
Tables only; answers.py says what becomes of each."""

from __future__ import annotations

import re

from lorakit.text.phrases import BE, FINITE, PREPOSITIONS, RELATIVES

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
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "「": "」", "„": "“"}
