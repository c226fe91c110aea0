// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"strings"

	"golang.org/x/text/language"
)

// userMessage is a sentence for the person in front of the app. Many reasons share one: that person can change the
// request or wait, and has no use for more.
type userMessage int

const (
	sayNotFinished userMessage = iota // the zero value is true of any failure
	sayPromptRefused
	sayImageWithheld
	sayResultWithheld
	sayForbidden
	sayTooSimilar
	sayNoImage
	sayWrongLanguage
	sayUnavailable
	sayBusy
	sayTooLarge
	sayBadRequest
	userMessageCount
)

// The languages of LocalizedMessage; English, the first, serves everybody else.
const (
	inEnglish = iota
	inSimplifiedChinese
	inTraditionalChinese
	inRussian
	inFrench
	localeCount
)

// locales are the BCP-47 names under which the languages appear in google.rpc.LocalizedMessage.
var locales = [localeCount]string{
	inEnglish:            "en",
	inSimplifiedChinese:  "zh-Hans",
	inTraditionalChinese: "zh-Hant",
	inRussian:            "ru",
	inFrench:             "fr",
}

var localeMatcher = language.NewMatcher([]language.Tag{
	inEnglish:            language.English,
	inSimplifiedChinese:  language.SimplifiedChinese,
	inTraditionalChinese: language.TraditionalChinese,
	inRussian:            language.Russian,
	inFrench:             language.French,
})

// maxAcceptLanguage is how many bytes of an Accept-Language field are read; browsers with ten languages send 150.
const maxAcceptLanguage = 512

// localize returns one or two plain sentences about a reason in the language that an Accept-Language field prefers,
// and the BCP-47 name of that language. An empty or unreadable field means English.
func localize(acceptLanguage, reason, stage string) (locale, message string) {
	i := inEnglish
	if acceptLanguage != "" {
		_, i = language.MatchStrings(localeMatcher, shortened(acceptLanguage))
	}
	return locales[i], userMessages[explain(reason, stage).say][i]
}

// shortened cuts a list off behind its last whole element that fits: half a tag would spoil the list for the parser.
func shortened(acceptLanguage string) string {
	if len(acceptLanguage) <= maxAcceptLanguage {
		return acceptLanguage
	}
	head := acceptLanguage[:maxAcceptLanguage+1]
	return head[:max(strings.LastIndexByte(head, ','), 0)]
}

var userMessages = [userMessageCount][localeCount]string{
	sayNotFinished: {
		inEnglish:            "Your request could not be completed. Please try again, or word it differently.",
		inSimplifiedChinese:  "未能完成您的请求。请重试，或换一种说法。",
		inTraditionalChinese: "無法完成您的要求。請再試一次，或換個方式描述。",
		inRussian:            "Не удалось выполнить запрос. Попробуйте ещё раз или сформулируйте его иначе.",
		inFrench:             "Votre demande n’a pas pu aboutir. Réessayez, ou formulez-la autrement.",
	},
	sayPromptRefused: {
		inEnglish:            "This request does not follow the content rules and could not be accepted. Please change what you are asking for.",
		inSimplifiedChinese:  "您的请求不符合内容规范，无法处理。请修改内容后再试。",
		inTraditionalChinese: "您的要求不符合內容規範，因此無法處理。請修改內容後再試一次。",
		inRussian:            "Запрос не соответствует правилам, поэтому выполнить его нельзя. Пожалуйста, измените его.",
		inFrench:             "Cette demande ne respecte pas les règles de contenu et n’a pas pu être traitée. Merci de la modifier.",
	},
	sayImageWithheld: {
		inEnglish:            "The picture was created but does not follow the content rules, so it cannot be shown. Please change your request and try again.",
		inSimplifiedChinese:  "图片已生成，但不符合内容规范，无法显示。请修改描述后再试。",
		inTraditionalChinese: "圖片已經產生，但不符合內容規範，因此無法顯示。請修改描述後再試一次。",
		inRussian:            "Изображение создано, но не соответствует правилам, поэтому показать его нельзя. Пожалуйста, измените запрос и попробуйте ещё раз.",
		inFrench:             "L’image a été créée, mais elle ne respecte pas les règles de contenu et ne peut pas être affichée. Modifiez votre demande, puis réessayez.",
	},
	sayResultWithheld: {
		inEnglish:            "The result does not follow the content rules, so it cannot be shown. Please change your request and try again.",
		inSimplifiedChinese:  "生成的结果不符合内容规范，无法显示。请修改内容后再试。",
		inTraditionalChinese: "產生的結果不符合內容規範，因此無法顯示。請修改內容後再試一次。",
		inRussian:            "Результат не соответствует правилам, поэтому показать его нельзя. Пожалуйста, измените запрос и попробуйте ещё раз.",
		inFrench:             "Le résultat ne respecte pas les règles de contenu et ne peut pas être affiché. Modifiez votre demande, puis réessayez.",
	},
	sayForbidden: {
		inEnglish:            "This request is not allowed. Please do not send it again.",
		inSimplifiedChinese:  "此类请求不被允许，请勿再次发送。",
		inTraditionalChinese: "系統不允許這類要求，請勿再次傳送。",
		inRussian:            "Такой запрос недопустим. Пожалуйста, не отправляйте его снова.",
		inFrench:             "Cette demande n’est pas autorisée. Merci de ne pas la renvoyer.",
	},
	sayTooSimilar: {
		inEnglish:            "The result was too close to an existing work and cannot be shown. Please ask for something more original.",
		inSimplifiedChinese:  "生成的结果与已有作品过于相似，无法显示。请换一个更有原创性的想法。",
		inTraditionalChinese: "產生的結果與現有作品過於相似，因此無法顯示。請換個更有原創性的構想。",
		inRussian:            "Результат слишком похож на существующее произведение, поэтому показать его нельзя. Попробуйте придумать что-нибудь более оригинальное.",
		inFrench:             "Le résultat ressemble trop à une œuvre existante et ne peut pas être affiché. Essayez une idée plus originale.",
	},
	sayNoImage: {
		inEnglish:            "No picture was created this time. Please say more clearly what it should show, or ask for something else.",
		inSimplifiedChinese:  "这次没有生成图片。请把想要的画面描述得更清楚，或换一个内容试试。",
		inTraditionalChinese: "這次沒有產生圖片。請更清楚地描述想要的畫面，或換個主題試試。",
		inRussian:            "На этот раз изображение не получилось. Опишите подробнее, что на нём должно быть, или попросите что-нибудь другое.",
		inFrench:             "Aucune image n’a été créée cette fois-ci. Décrivez plus précisément ce qu’elle doit montrer, ou demandez autre chose.",
	},
	sayWrongLanguage: {
		inEnglish:            "This language is not supported yet. Please write your request in another language.",
		inSimplifiedChinese:  "暂不支持这种语言，请换一种语言输入。",
		inTraditionalChinese: "目前還不支援這種語言，請改用其他語言輸入。",
		inRussian:            "Этот язык пока не поддерживается. Пожалуйста, напишите запрос на другом языке.",
		inFrench:             "Cette langue n’est pas encore prise en charge. Merci d’écrire votre demande dans une autre langue.",
	},
	sayUnavailable: {
		inEnglish:            "The service is not available right now. Please try again later.",
		inSimplifiedChinese:  "服务暂时不可用，请稍后再试。",
		inTraditionalChinese: "服務目前無法使用，請稍後再試。",
		inRussian:            "Сервис сейчас недоступен. Пожалуйста, попробуйте позже.",
		inFrench:             "Le service est momentanément indisponible. Merci de réessayer plus tard.",
	},
	sayBusy: {
		inEnglish:            "There are too many requests right now. Please wait a moment and try again.",
		inSimplifiedChinese:  "当前请求过多，请稍等片刻再试。",
		inTraditionalChinese: "目前的要求過多，請稍候再試。",
		inRussian:            "Сейчас слишком много запросов. Подождите немного и попробуйте ещё раз.",
		inFrench:             "Il y a trop de demandes en ce moment. Patientez un instant, puis réessayez.",
	},
	sayTooLarge: {
		inEnglish:            "Your request is too large. Please use fewer or smaller pictures.",
		inSimplifiedChinese:  "您的请求过大，请减少图片数量或使用较小的图片。",
		inTraditionalChinese: "您的要求內容過大，請減少圖片數量，或改用較小的圖片。",
		inRussian:            "Запрос слишком большой. Пожалуйста, уменьшите количество или размер изображений.",
		inFrench:             "Votre demande est trop volumineuse. Utilisez moins d’images ou des images plus petites.",
	},
	sayBadRequest: {
		inEnglish:            "The app sent a faulty request. Please restart the app or contact its support.",
		inSimplifiedChinese:  "应用发送的请求有误。请重新打开应用，或联系客服。",
		inTraditionalChinese: "應用程式送出的要求有誤。請重新開啟應用程式，或聯絡客服人員。",
		inRussian:            "Приложение отправило запрос с ошибкой. Перезапустите приложение или обратитесь в его службу поддержки.",
		inFrench:             "L’application a envoyé une demande incorrecte. Redémarrez-la ou contactez son assistance.",
	},
}
